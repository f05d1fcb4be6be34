"""Late interaction against PyLate: the same vectors, scores, loss and gradient, with less computed."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from core.engine.batching import Packing, Share
from core.engine.encoding import encode_micro_batches
from core.engine.losses import MultipleNegativesRanking
from core.families.collator import Collator
from core.families.late_interaction import Objective, Reader, make_encode, maxsim
from core.families.late_interaction.objective import token_vectors
from core.families.late_interaction.pooling import prune, vectors_left
from core.spec.parts.models import PruneEmbeddings
from core.spec.parts.training import Lengths
from tests.tiny import WORDS, make_colbert, make_model, token_rows
from tests.training.running import run

pytest.importorskip("pylate")
from pylate.losses import CachedContrastive, Contrastive
from pylate.losses import Distillation as PyLateDistillation
from pylate.models import ColBERT
from pylate.scores import colbert_scores
from pylate.utils import ColBERTCollator

ROWS = [
    {
        "query": f"what is {WORDS[index]}",
        "positive": " ".join([*WORDS[index : index + 1 + index % 9], ",", "document", "."]),
        "negatives": [" ".join(WORDS[-1 - index : -1]) + " ; " + WORDS[3]],
    }
    for index in range(12)
]
LENGTHS = {"query": 16, "document": 48}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    models = tmp_path_factory.mktemp("models")
    return make_colbert(models / "colbert", make_model(models / "bi-encoder", dropout=0.0))


@pytest.fixture(params=[True, False], ids=["expansion", "no expansion"])
def model(request, folder) -> ColBERT:
    return ColBERT(str(folder), device="cpu", do_query_expansion=request.param)


def our_loss(model, rows=ROWS, *, cached=False, legacy=False, budget=128, prune_embeddings=None):
    reader = Reader(model, prune_embeddings)
    batch = Collator(reader, LENGTHS, Packing(budget, multiple=8))(token_rows(model.tokenizer, rows))
    vectors = encode_micro_batches(model, batch.texts, forward=token_vectors(prune_embeddings), cached=cached)
    return Objective(MultipleNegativesRanking(0.5), legacy_sum_gradient=legacy)(vectors, batch)


def gradients(model, loss) -> list[torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


def features(model, rows=ROWS) -> list[dict[str, torch.Tensor]]:
    """As PyLate's collator makes them."""
    columns = [
        {"query": row["query"], "positive": row["positive"], "negative": row["negatives"][0]} for row in rows
    ]
    batch = ColBERTCollator(model.tokenize)(columns)
    return [
        {key.removeprefix(f"{name}_"): value for key, value in batch.items() if key.startswith(f"{name}_")}
        for name in ("query", "positive", "negative")
    ]


def test_loss_and_gradients_equal_pylate(model):
    theirs = Contrastive(model, temperature=0.5)(features(model))
    wanted = gradients(model, theirs)
    ours = our_loss(model)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    for one, other in zip(gradients(model, ours), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_micro_batches_change_nothing(model):
    plain = our_loss(model)
    wanted = gradients(model, plain)
    cached = our_loss(model, cached=True, budget=32)
    assert cached.item() == pytest.approx(plain.item(), rel=1e-6)
    for one, other in zip(gradients(model, cached), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_the_legacy_gradient_is_pylates_cached_one(model):
    """A batch's size times too large: that is what its published recipes were trained with."""
    loss = CachedContrastive(model, mini_batch_size=3, temperature=0.5)
    wanted = gradients(model, loss(features(model)))
    found = gradients(model, our_loss(model, legacy=True))
    right = gradients(model, our_loss(model))
    for one, other, small in zip(found, wanted, right, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(one, small * len(ROWS), rtol=1e-3, atol=1e-4)


def test_vectors_equal_pylates(model):
    texts = [row["positive"] for row in ROWS] + ["", WORDS[0], "x " * 100]
    encode = make_encode(model, Packing(64), lambda: None)
    for role in ("query", "document"):
        wanted = model.encode(texts, is_query=role == "query", show_progress_bar=False)
        found = encode(texts, role)
        assert found.counts.tolist() == [len(of_text) for of_text in wanted]
        np.testing.assert_allclose(found.vectors, np.concatenate(wanted), atol=1e-5)


@pytest.mark.parametrize("at_once", [1 << 24, 64, 1])
def test_maxsim_equals_every_pair_of_tokens(at_once):
    generator = torch.Generator().manual_seed(1)
    query_counts, document_counts = torch.tensor([3, 1, 4]), torch.tensor([5, 2, 0, 7, 2])
    queries = torch.randn(8, 6, generator=generator, requires_grad=True)
    documents = torch.randn(16, 6, generator=generator, requires_grad=True)
    found = maxsim(queries, query_counts, documents, document_counts, scores_at_once=at_once)
    wanted = torch.stack(
        [
            torch.stack(
                [
                    (query @ document.T).max(1).values.sum() if len(document) else query.sum() * 0
                    for document in documents.split(document_counts.tolist())
                ]
            )
            for query in queries.split(query_counts.tolist())
        ]
    )
    torch.testing.assert_close(found, wanted)
    weights = torch.randn(wanted.shape, generator=generator)
    of_found = torch.autograd.grad((found * weights).sum(), (queries, documents))
    of_wanted = torch.autograd.grad((wanted * weights).sum(), (queries, documents))
    for one, other in zip(of_found, of_wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_maxsim_equals_pylate_where_a_mask_has_holes():
    """And where the nearest token is far: padding scores 0 there, also for the gradient."""
    generator = torch.Generator().manual_seed(2)
    queries = torch.randn(3, 4, 8, generator=generator, requires_grad=True)
    documents = torch.randn(5, 9, 8, generator=generator, requires_grad=True)
    mask = torch.rand(5, 9, generator=generator) > 0.7
    mask[:, 0] = True
    mask[4] = True  # whole: nothing is padded
    wanted = colbert_scores(queries, documents, documents_mask=mask)
    counts = mask.sum(1)
    found = maxsim(queries.flatten(0, 1), torch.full((3,), 4), documents[mask], counts, floored=counts < 9)
    torch.testing.assert_close(found, wanted)
    without = maxsim(queries.flatten(0, 1), torch.full((3,), 4), documents[mask], counts)
    assert (without[:, :4] < found[:, :4] - 1e-3).any()
    weights = torch.randn(wanted.shape, generator=generator)
    of_found = torch.autograd.grad((found * weights).sum(), (queries, documents))
    of_wanted = torch.autograd.grad((wanted * weights).sum(), (queries, documents))
    for one, other in zip(of_found, of_wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_fused_kernels_get_padded_texts_and_their_masks(monkeypatch):
    """In their place stands PyLate's plain function, with the arguments that the kernels' has."""
    import sys
    import types

    from core.families.late_interaction.maxsim import _fused

    def plain(queries, documents, q_mask=None, d_mask=None, *, normalize=False, backward=None):
        assert not normalize
        similar = torch.einsum("ash,bth->abst", queries, documents)
        best = similar.masked_fill(~d_mask[None, :, None], -torch.inf).amax(3)
        return (best * q_mask[:, None]).sum(2)

    module = types.ModuleType("late_interaction_kernels.autograd")
    module.maxsim = plain  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "late_interaction_kernels", types.ModuleType("late_interaction_kernels"))
    monkeypatch.setitem(sys.modules, "late_interaction_kernels.autograd", module)
    query_counts, document_counts = torch.tensor([3, 1, 4]), torch.tensor([5, 2, 7])
    queries, documents = torch.randn(8, 16), torch.randn(14, 16)
    for floored in (torch.tensor([False, False, False]), torch.tensor([True, False, True])):
        found = _fused(queries, query_counts, documents, document_counts, floored)
        wanted = maxsim(queries, query_counts, documents, document_counts, floored=floored)
        torch.testing.assert_close(found, wanted)
    # What they cannot do is left to us.
    assert _fused(queries[:, :12], query_counts, documents[:, :12], document_counts, floored) is None
    assert _fused(queries, query_counts, documents[:7], torch.tensor([5, 2, 0]), floored) is None


def test_the_largest_block_is_bounded(monkeypatch):
    """No tensor of all pairs of tokens: 8 x 40 x 16 x 64 similarities with room for 4,096."""
    largest = 0
    product = torch.Tensor.__matmul__

    def watch(one, other):
        nonlocal largest
        found = product(one, other)
        largest = max(largest, found.numel())
        return found

    monkeypatch.setattr(torch.Tensor, "__matmul__", watch)
    queries, documents = torch.randn(8 * 16, 8), torch.randn(40 * 64, 8)
    maxsim(queries, torch.full((8,), 16), documents, torch.full((40,), 64), scores_at_once=4096)
    assert 0 < largest <= 4096


def test_processes_share_a_batch_of_ragged_vectors(model):
    """What each of three processes makes, put one behind the other, is what one alone makes."""
    rows = token_rows(model.tokenizer, ROWS)
    whole = Collator(Reader(model), LENGTHS, Packing(96))(rows)
    with torch.no_grad():
        wanted = encode_micro_batches(model, whole.texts, forward=token_vectors(None))
        handed_in: list[torch.Tensor] = []
        for rank in range(3):
            part = Collator(Reader(model), LENGTHS, Packing(96), share=Share(rank, 3))(rows).texts
            part = replace(part, positions=torch.arange(part.height))
            handed_in.append(
                encode_micro_batches(model, part, forward=token_vectors(None), gather=lambda found: found)
            )
            assert len(handed_in[-1]) == part.height
        of_any = Collator(Reader(model), LENGTHS, Packing(96), share=Share(0, 3))(rows)
        torch.testing.assert_close(torch.cat(handed_in)[of_any.texts.positions], wanted)


@pytest.mark.parametrize("factor", [1.0, 1.5, 2.0, 3.0])
def test_pooling_clusters_as_pylate_does(folder, factor):
    model = ColBERT(str(folder), device="cpu")
    asked = PruneEmbeddings(pool_factor=factor, protected_tokens=2)
    for count in (1, 2, 3, 5, 40):
        generator = torch.Generator().manual_seed(count)
        vectors = torch.nn.functional.normalize(torch.randn(count, 16, generator=generator), dim=-1)
        found = prune(vectors, asked)
        assert len(found) == vectors_left(count, asked)
        if factor.is_integer():
            wanted = model.pool_embeddings_hierarchical([vectors], int(factor), 2)[0]
            ordered = [sorted(rows.tolist()) for rows in (found, wanted)]
            np.testing.assert_allclose(ordered[0], ordered[1], atol=1e-6)


def test_equal_vectors_still_make_as_many_clusters():
    asked = PruneEmbeddings(pool_factor=2.0, protected_tokens=0)
    same = torch.nn.functional.normalize(torch.ones(10, 4), dim=-1)
    assert len(prune(same, asked)) == vectors_left(10, asked) == 5


def test_a_long_document_is_pooled_in_stretches(monkeypatch):
    from core.families.late_interaction import pooling

    monkeypatch.setattr(pooling, "_AT_ONCE", 8)
    asked = PruneEmbeddings(pool_factor=2.0, protected_tokens=1)
    vectors = torch.nn.functional.normalize(torch.randn(34, 4), dim=-1)
    seen = []
    original = pooling._ward
    monkeypatch.setattr(pooling, "_ward", lambda some, n: seen.append(len(some)) or original(some, n))
    assert len(prune(vectors, asked)) == vectors_left(34, asked)
    assert max(seen) <= 8
    assert sum(seen) == 33


@pytest.mark.parametrize("strategy", ["hierarchical", "attention"])
def test_a_gradient_goes_through_what_is_left(folder, strategy):
    model = ColBERT(str(folder), device="cpu")
    loss = our_loss(model, prune_embeddings=PruneEmbeddings(strategy=strategy))
    assert all(torch.isfinite(found).all() and found.abs().sum() > 0 for found in gradients(model, loss)[-1:])
    cached = our_loss(model, cached=True, budget=32, prune_embeddings=PruneEmbeddings(strategy=strategy))
    assert cached.item() == pytest.approx(loss.item(), rel=1e-5)


def test_distillation_equals_pylates(folder):
    from core.engine.losses import Distillation

    model = ColBERT(str(folder), device="cpu", do_query_expansion=True)
    rows = [{**row, "scores": [3.0, 1.0 + index / 7]} for index, row in enumerate(ROWS)]
    batch = Collator(Reader(model), LENGTHS, Packing(128))(token_rows(model.tokenizer, rows))
    vectors = encode_micro_batches(model, batch.texts, forward=token_vectors(None))
    ours = Objective(Distillation(1.0, 1.0))(vectors, batch)
    query, positive, negative = features(model)
    both = {key: torch.stack([positive[key], negative[key]], dim=1).flatten(0, 1) for key in positive}
    theirs = PyLateDistillation(model, normalize_scores=False)(
        [query, both], torch.tensor([row["scores"] for row in rows])
    )
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-4)


def test_what_is_saved_is_what_pylate_loads(folder, tmp_path):
    from core.families.late_interaction import save_model, set_lengths
    from core.families.late_interaction.colbert import read_colbert

    model = read_colbert(str(folder), device="cpu").eval()
    set_lengths(model, {"query": 12, "document": 40}, Lengths(saved="trained"))
    save_model(model, tmp_path / "saved")
    again = ColBERT(str(tmp_path / "saved"), device="cpu")
    settings = json.loads((tmp_path / "saved" / "config_sentence_transformers.json").read_text())
    assert (settings["query_length"], settings["document_length"]) == (12, 40)
    texts = [row["positive"] for row in ROWS]
    encode = make_encode(model, Packing(256), lambda: None)
    for role in ("query", "document"):
        theirs = again.encode(texts, is_query=role == "query")
        np.testing.assert_allclose(encode(texts, role).vectors, np.concatenate(theirs), atol=1e-5)


def test_an_index_ranks_as_scoring_everything_does(folder, tmp_path):
    from core.data.retrieval_sets.judgments import RetrievalSet
    from core.families.family import Use
    from core.families.late_interaction.evaluator import Ranker

    model = ColBERT(str(folder), device="cpu")
    words = [f"{one} {other} {third}" for one in WORDS[:8] for other in WORDS[8:16] for third in WORDS[16:19]]
    dataset = RetrievalSet(
        {f"q{index}": text for index, text in enumerate(words[::40])},
        {f"d{index}": text for index, text in enumerate(words)},
        {"q0": {"d0": 1}},
        excluded={"q1": {"d3"}},
    )
    encode = make_encode(model, Packing(512), lambda: None)
    ranker = Ranker(encode, Use(seed=0), "cpu", tmp_path, lambda: None)
    exact = ranker.exactly(dataset, 5)
    vectors = ranker.facts["vectors"]
    found = ranker.by_index(dataset, 5, tmp_path)
    assert ranker.facts["vectors"] == vectors
    assert ranker.facts["index_bytes"] > 0
    assert exact.keys() == found.keys() == dataset.queries.keys()
    assert "d3" not in found["q1"]
    same = sum(len(exact[query].keys() & found[query].keys()) for query in exact)
    assert same >= 0.8 * 5 * len(exact)  # the index is approximate, the scores are not
    for query, documents in found.items():
        assert list(documents.values()) == sorted(documents.values(), reverse=True)
        for name in documents.keys() & exact[query].keys():
            assert documents[name] == pytest.approx(exact[query][name], rel=1e-5)


def test_a_trained_projection_gets_no_random_one_behind_it(folder, tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps({"query": w, "positive": f"the {w}"}) + "\n" for w in WORDS))
    spec = {
        "kind": "train",
        "family": "late_interaction",
        "base_model": f"file:{folder}",
        "dataset": f"file:{path}",
        "max_steps": 1,
        "late_interaction": {"embedding_size": 8},
    }
    result, _ = run(spec, tmp_path / "out")
    assert result.end_reason.code == "bad_spec"
    assert "trained projection to 16 dimensions" in result.end_reason.message
    same = spec | {"late_interaction": {"embedding_size": 16}}
    result, _ = run(same, tmp_path / "same")
    assert result.state == "succeeded", result.end_reason
