"""Micro-batches change the speed, never the loss."""

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.losses import MultipleNegativesRankingLoss

from core.engine.batching import Packing
from core.engine.encoding import encode_micro_batches
from core.engine.losses import MultipleNegativesRanking
from core.engine.models.loading import weights_sha256
from core.engine.tokens import Frame
from core.families.collator import Collator
from core.families.dense import Objective, Reader
from core.spec.train import Prompts
from tests.tiny import WORDS, make_model, token_rows

ROWS = [
    {
        "query": f"what is {WORDS[index]}",
        "positive": " ".join(WORDS[index : index + 1 + index % 9] + ["document"] * (index % 4)),
        "negatives": [WORDS[-1 - index], WORDS[3]] if index % 3 == 0 else [],
    }
    for index in range(12)
]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> SentenceTransformer:
    folder = make_model(tmp_path_factory.mktemp("models") / "steady", dropout=0.0)
    return SentenceTransformer(str(folder), device="cpu")


def collate(model, rows, token_budget):
    collator = Collator(
        Reader(Frame.of(model.tokenizer), 512),
        {"query": 16, "document": 32},
        Packing(token_budget, multiple=8),
    )
    return collator(token_rows(model.tokenizer, rows))


def our_loss(model, rows, *, token_budget=64, cached=False, symmetric=False):
    batch = collate(model, rows, token_budget)
    embeddings = encode_micro_batches(model, batch.texts, cached=cached)
    return Objective(MultipleNegativesRanking(0.05, symmetric=symmetric))(embeddings, batch)


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("symmetric", [False, True])
def test_loss_and_gradients_equal_sentence_transformers(model, symmetric):
    rows = [{**row, "negatives": []} for row in ROWS]
    options = (
        {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"}
        if symmetric
        else {}
    )
    theirs = MultipleNegativesRankingLoss(model, scale=20.0, **options)
    features = [model.tokenize([row[column] for row in rows]) for column in ("query", "positive")]
    expected = theirs(features, None)
    expected_gradients = gradients(model, expected)
    ours = our_loss(model, rows, symmetric=symmetric)
    assert ours.item() == pytest.approx(expected.item(), rel=1e-5)
    for mine, wanted in zip(gradients(model, ours), expected_gradients, strict=True):
        assert torch.allclose(mine, wanted, atol=1e-4)


@pytest.mark.parametrize("token_budget", [16, 64, 10_000])
@pytest.mark.parametrize("cached", [False, True])
def test_neither_the_budget_nor_caching_changes_anything(model, token_budget, cached):
    whole = our_loss(model, ROWS, token_budget=100_000)
    wanted = gradients(model, whole)
    other = our_loss(model, ROWS, token_budget=token_budget, cached=cached)
    assert other.item() == pytest.approx(whole.item(), rel=1e-5)
    for mine, expected in zip(gradients(model, other), wanted, strict=True):
        assert torch.allclose(mine, expected, atol=1e-4)


def test_both_passes_of_the_cached_loss_see_the_same_dropout(tiny_model):
    model = SentenceTransformer(str(tiny_model), device="cpu").train()
    found = []
    for cached in (False, True):
        torch.manual_seed(5)
        found.append(gradients(model, our_loss(model, ROWS, cached=cached)))
    for plain, cached in zip(*found, strict=True):
        assert torch.allclose(plain, cached, atol=1e-6)


def test_equal_texts_are_encoded_once(model):
    rows = [{**row, "negatives": [WORDS[3]]} for row in ROWS]
    batch = collate(model, rows, 64)
    texts = {text for row in rows for text in (row["query"], row["positive"], *row["negatives"])}
    assert sum(len(micro_batch["input_ids"]) for micro_batch in batch.texts.parts) == len(texts)
    assert len(batch.texts.positions) == 3 * len(rows)


def test_prompts_and_lengths_are_those_of_the_role(model):
    collator = Collator(
        Reader(Frame.of(model.tokenizer), 512),
        {"query": 8, "document": 16},
        Packing(10_000, overhead=1000),
    )
    long = " ".join(WORDS)
    prompts = Prompts(query="what is ", document="a document of ")
    rows = [{"query": long, "positive": long, "negatives": []}]
    batch = collator(token_rows(model.tokenizer, rows, prompts))
    assert batch.tokens == 8 + 16
    [micro_batch] = batch.texts.parts
    words = model.tokenizer.batch_decode(micro_batch["input_ids"], skip_special_tokens=True)
    assert words[0].startswith("a document of river")
    assert words[1].startswith("what is river")


def test_a_model_with_a_scalar_among_its_weights_has_a_hash_too(tiny_model):
    model = SentenceTransformer(str(tiny_model), device="cpu")
    plain = weights_sha256(model)
    assert plain == weights_sha256(SentenceTransformer(str(tiny_model), device="cpu"))
    model.register_buffer("logit_scale", torch.tensor(2.5))
    assert weights_sha256(model) != plain


def test_the_table_of_words_gets_one_gradient_a_batch(model):
    batch = collate(model, ROWS, token_budget=64)
    assert len(batch.texts.parts) > 3
    embeddings = encode_micro_batches(model, batch.texts)
    table = model[0].auto_model.get_input_embeddings()
    assert "forward" not in vars(table)  # put back
    reached = []
    table.weight.register_hook(lambda gradient: reached.append(gradient.shape))
    operations, waiting = [], [embeddings.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in operations:
            operations.append(node)
            waiting += [following for following, _ in node.next_functions]
    of_table = [
        node
        for node in operations
        if any(getattr(after, "variable", None) is table.weight for after, _ in node.next_functions)
    ]
    assert len(of_table) == 1
    embeddings.sum().backward()
    assert len(reached) == 1
    model.zero_grad()


def test_padding_learns_nothing(model):
    table = model[0].auto_model.get_input_embeddings()
    assert table.padding_idx is not None
    batch = collate(model, ROWS, token_budget=64)
    assert any((group["input_ids"] == table.padding_idx).any() for group in batch.texts.parts)
    model.zero_grad()
    encode_micro_batches(model, batch.texts).pow(2).sum().backward()
    assert table.weight.grad[table.padding_idx].abs().max() == 0
    assert table.weight.grad.abs().max() > 0
    model.zero_grad()
