"""Cross-encoders against sentence-transformers: the same inputs, scores, losses and gradients."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder
from sentence_transformers.cross_encoder.losses import (
    BinaryCrossEntropyLoss,
    LambdaLoss,
    MarginMSELoss,
)

from core.engine.batching import Packing
from core.engine.encoding import encode_micro_batches
from core.engine.losses import make_loss
from core.families.collator import Collator
from core.families.cross_encoder import Objective, Reader, make_forward
from core.families.cross_encoder.pair_model import PairModel
from core.jobs.events import EventType
from core.spec.parts.training import Loss
from core.spec.train import TrainSpec
from tests.tiny import WORDS, make_colbert, make_cross_encoder, make_model, token_rows
from tests.training.running import of, run

ROWS = [
    {
        "query": f"what is {WORDS[index]}",
        "positive": " ".join([*WORDS[index : index + 1 + index % 9], "document"]),
        "negatives": [WORDS[-1 - index], " ".join(WORDS[3 : 4 + index])],
    }
    for index in range(10)
]
LENGTHS = {"query": 32, "document": 64}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    models = tmp_path_factory.mktemp("models")
    bi_encoder = make_model(models / "bi-encoder", dropout=0.0)
    return make_cross_encoder(models / "cross-encoder", bi_encoder)


@pytest.fixture
def model(folder) -> CrossEncoder:
    return CrossEncoder(str(folder), device="cpu")


def ours(model: CrossEncoder) -> PairModel:
    """With the same weights."""
    return PairModel(model.model, model.tokenizer, model.activation_fn)


def spec_of(**loss) -> TrainSpec:
    return TrainSpec(kind="train", family="cross_encoder", base_model="file:x", dataset="file:y", loss=loss)


def collate(model, loss: Loss, rows=ROWS, budget=128, lengths=LENGTHS):
    reader = Reader(model.tokenizer, loss, 128)
    return Collator(reader, lengths, Packing(budget, multiple=8))(token_rows(model.tokenizer, rows))


def our_loss(model, rows=ROWS, *, cached=False, budget=128, **loss):
    spec = spec_of(**loss)
    batch = collate(model, spec.loss, rows, budget)
    scores = encode_micro_batches(ours(model), batch.texts, forward=make_forward(spec), cached=cached)
    return Objective(make_loss(spec.loss))(scores, batch)


def gradients(model, loss) -> list[torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


def assert_equal(model, ours, theirs):
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    wanted = gradients(model, theirs)
    for one, other in zip(gradients(model, ours), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=3e-5)


def test_the_scores_are_those_of_the_library(model):
    batch = collate(model, Loss())
    with torch.no_grad():
        scores = encode_micro_batches(ours(model.eval()), batch.texts, forward=make_forward(spec_of()))
    texts = [row["positive"] for row in ROWS] + [text for row in ROWS for text in row["negatives"]]
    pairs = [(ROWS[query]["query"], texts[document]) for query, document in batch.outputs]
    wanted = model.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False)
    np.testing.assert_allclose(scores.numpy(), wanted, atol=1e-5)


def test_binary_cross_entropy(model):
    queries = [row["query"] for row in ROWS]
    texts, labels = [], []
    for row in ROWS:
        texts += [row["positive"], *row["negatives"]]
        labels += [1.0, 0.0, 0.0]
    repeated = [query for query in queries for _ in range(3)]
    theirs = BinaryCrossEntropyLoss(model)([repeated, texts], torch.tensor(labels))
    assert_equal(model, our_loss(model, in_batch_negatives=0), theirs)


def test_lambda_loss(model):
    lists = [[row["positive"], *row["negatives"]] for row in ROWS]
    theirs = LambdaLoss(model, mini_batch_size=-1)(
        [[row["query"] for row in ROWS], lists], [torch.tensor([1.0, 0.0, 0.0]) for _ in ROWS]
    )
    assert_equal(model, our_loss(model, name="lambda", in_batch_negatives=0), theirs)


def test_margin_mse(model):
    rows = [
        {**row, "negatives": row["negatives"][:1], "scores": [4.0, index / 3]}
        for index, row in enumerate(ROWS)
    ]
    columns = [[row["query"] for row in rows], [row["positive"] for row in rows]]
    columns.append([row["negatives"][0] for row in rows])
    margins = torch.tensor([row["scores"][0] - row["scores"][1] for row in rows])
    theirs = MarginMSELoss(model)(columns, margins)
    assert_equal(model, our_loss(model, rows, name="margin_mse"), theirs)


def test_mnrl_ranks_own_and_other_documents(model):
    found = our_loss(model, name="mnrl", in_batch_negatives=2)
    total = 0.0
    for index, row in enumerate(ROWS):
        others = [ROWS[(index + step) % len(ROWS)]["positive"] for step in (1, 2)]
        candidates = [row["positive"], *row["negatives"], *others]
        logits = model.predict(
            [(row["query"], text) for text in candidates],
            activation_fn=torch.nn.Identity(),
            convert_to_tensor=True,
            show_progress_bar=False,
        )
        total += torch.nn.functional.cross_entropy(logits[None], torch.tensor([0])).item()
    assert found.item() == pytest.approx(total / len(ROWS), rel=1e-4)


def test_micro_batches_change_nothing(model):
    plain = our_loss(model, name="mnrl")
    cached = our_loss(model, name="mnrl", cached=True, budget=48)
    assert_equal(model, cached, plain)


def test_rows_without_negatives_get_others_answers(model):
    rows = [{**row, "negatives": []} for row in ROWS[:3]]
    rows[0]["negatives"] = [WORDS[5]]
    pairs = collate(model, Loss(name="bce"), rows).outputs.tolist()
    assert pairs == [[0, 0], [1, 1], [2, 2], [0, 3], [1, 2], [1, 0], [2, 0], [2, 1]]


def test_a_long_pair_keeps_its_query_and_fits_the_model(model):
    row = {"query": "what " * 40, "positive": "river " * 300, "negatives": []}
    loss = Loss(name="bce", in_batch_negatives=0)
    lengths = {"query": 20, "document": 500}
    batch = collate(model, loss, [row], lengths=lengths)
    ids = batch.texts.parts[0]["input_ids"][0].tolist()
    assert len(ids) == 128
    assert ids.count(model.tokenizer.sep_token_id) == 2
    assert ids.index(model.tokenizer.sep_token_id) == 19  # [CLS], 18 words, [SEP]: 20 of the query


@pytest.mark.parametrize("loss", ["bce", "mnrl", "lambda"])
def test_positives_that_nothing_is_told_apart_from_are_refused(folder, tmp_path, loss):
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps({"query": w, "positive": f"the {w}"}) + "\n" for w in WORDS))
    spec = {
        "kind": "train",
        "family": "cross_encoder",
        "base_model": f"file:{folder}",
        "dataset": f"file:{path}",
        "loss": {"name": loss, "in_batch_negatives": 0},
    }
    result, _ = run(spec, tmp_path / "out")
    assert result.end_reason.code == "bad_data"
    assert "26 of 26 rows have no negatives" in result.end_reason.message


def test_a_batch_without_negatives_has_a_loss_of_zero(model):
    """Among rows that have some, such a batch may come."""
    rows = [{**row, "negatives": []} for row in ROWS[:2]]
    loss = our_loss(model, rows, name="lambda", in_batch_negatives=0)
    assert loss.item() == 0
    assert all(gradient.abs().max() == 0 for gradient in gradients(model, loss))


def test_what_ranks_by_logits_is_saved_so(folder, tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps({"query": w, "positive": f"the {w}"}) + "\n" for w in WORDS))
    for loss, activation in (("bce", "Sigmoid"), ("mnrl", "Identity")):
        spec = {
            "kind": "train",
            "family": "cross_encoder",
            "base_model": f"file:{folder}",
            "dataset": f"file:{path}",
            "loss": {"name": loss},
            "max_steps": 1,
        }
        result, _ = run(spec, tmp_path / loss)
        assert result.state == "succeeded", result.end_reason
        saved = CrossEncoder(str(tmp_path / loss / "model"), device="cpu")
        assert type(saved.activation_fn).__name__ == activation


def test_the_retriever_is_looked_at_first_and_its_own_scores_are_told(folder, tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps({"query": w, "positive": f"the {w}"}) + "\n" for w in WORDS))
    spec = {
        "kind": "train",
        "family": "cross_encoder",
        "base_model": f"file:{folder}",
        "dataset": f"file:{path}",
        "max_steps": 1,
        "evaluation": {"datasets": [f"file:{path}"], "metrics": ["mrr@10"], "rerank": {"depth": 7}},
    }
    result, events = run(spec, tmp_path / "out")
    assert result.state == "succeeded", result.end_reason
    [told] = [data["message"] for data in of(events, EventType.NOTICE) if "alone" in data["message"]]
    assert told.startswith("bm25 alone: mrr@10 1.0000. Its 7 candidates hold 100.0%")
    bi_encoder = folder.parent / "bi-encoder"
    spec["evaluation"]["rerank"] = {"retriever": f"file:{bi_encoder}", "depth": 7}
    result, events = run(spec, tmp_path / "dense")
    assert result.state == "succeeded", result.end_reason
    assert any("Each evaluation scores 182 pairs" in data["message"] for data in of(events, EventType.NOTICE))
    colbert = make_colbert(tmp_path / "colbert", bi_encoder)
    spec["evaluation"]["rerank"] |= {"retriever": f"file:{colbert}", "family": "late_interaction"}
    result, _ = run(spec, tmp_path / "late")
    assert result.state == "succeeded", result.end_reason
    spec |= {"dry_run": True}
    spec["evaluation"]["rerank"]["retriever"] = f"file:{tmp_path}"
    result, _ = run(spec, tmp_path / "wrong")
    assert result.end_reason.code == "bad_model"


@pytest.mark.parametrize("name", ["regression", "cosent"])
def test_losses_of_pair_scores_equal_their_definition(model, name):
    rows = [
        {"query": row["query"], "positive": row["positive"], "scores": [(7 * index % 10) / 10]}
        for index, row in enumerate(ROWS)
    ]
    wanted = torch.tensor([row["scores"][0] for row in rows])
    features = model.tokenizer(
        [row["query"] for row in rows], [row["positive"] for row in rows], padding=True, return_tensors="pt"
    )
    logits = model.model(**features).logits[:, 0]
    if name == "regression":
        theirs = (logits.sigmoid() - wanted).square().mean()
    else:
        terms = [
            torch.exp((logits[low] - logits[high]) / 0.5)
            for high in range(10)
            for low in range(10)
            if wanted[high] > wanted[low]
        ]
        theirs = torch.log(1 + torch.stack(terms).sum())
    spec = spec_of(name=name, temperature=0.5)
    batch = collate(model, spec.loss, rows)
    scores = encode_micro_batches(ours(model), batch.texts, forward=make_forward(spec))
    assert_equal(model, Objective(make_loss(spec.loss, logits=True))(scores, batch), theirs)
