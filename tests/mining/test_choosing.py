"""Late interaction, faiss, preferences and the cross-encoder's check, each against what it replaces."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.families.late_interaction import Ragged, score_all, score_pairs
from core.runtime.reporter import RecordingReporter
from tests.data.running import write
from tests.mining.running import FREE, made, mine, page
from tests.tiny import WORDS, make_colbert, make_cross_encoder


@pytest.fixture(scope="module")
def cross_encoder(tmp_path_factory, tiny_model) -> Path:
    return make_cross_encoder(tmp_path_factory.mktemp("models") / "cross", tiny_model)


@pytest.fixture(scope="module")
def colbert(tmp_path_factory, tiny_model) -> Path:
    return make_colbert(tmp_path_factory.mktemp("models") / "colbert", tiny_model)


# -- late interaction -----------------------------------------------------------------------------------


@given(
    queries=st.lists(st.integers(1, 5), min_size=1, max_size=6),
    documents=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    at_once=st.integers(1, 400),
    seed=st.integers(0, 50),
)
@settings(max_examples=60)
def test_maxsim_equals_its_definition(queries, documents, at_once, seed):
    drawn = np.random.default_rng(seed)
    asked = Ragged.of([drawn.standard_normal((count, 4)).astype(np.float32) for count in queries])
    corpus = Ragged.of([drawn.standard_normal((count, 4)).astype(np.float32) for count in documents])
    expected = np.array(
        [
            [(asked.text(query) @ corpus.text(document).T).max(1).sum() for document in range(len(corpus))]
            for query in range(len(asked))
        ]
    )
    found = score_all(asked, corpus, scores_at_once=at_once)
    assert np.allclose(found.numpy(), expected, atol=1e-5)
    pairs = np.stack(np.meshgrid(range(len(asked)), range(len(corpus)), indexing="ij"), axis=-1).reshape(
        -1, 2
    )
    assert np.allclose(score_pairs(asked, corpus, pairs), expected.reshape(-1), atol=1e-5)
    some = asked.span(slice(1, 3))
    assert all((some.text(index) == asked.text(index + 1)).all() for index in range(len(some)))


@pytest.mark.parametrize("half", [False, True])
def test_late_interaction_finds_what_pylate_scores_highest(rows_file, colbert, tmp_path, monkeypatch, half):
    monkeypatch.setattr("core.retrieval.encoders.TokenEncoder.SHARD", 5)
    result = mine(
        tmp_path / "out",
        f"file:{rows_file}",
        f"file:{colbert}",
        family="late_interaction",
        half=half,
        num_negatives=6,
        filters={**FREE, "same_group": True},
    )
    assert result.state == "succeeded", result.end_reason
    ColBERT = pytest.importorskip("pylate.models").ColBERT  # noqa: N806
    colbert_scores = pytest.importorskip("pylate.scores").colbert_scores

    model = ColBERT(str(colbert), device="cpu")
    lines = [json.loads(line) for line in rows_file.read_text().splitlines()]
    documents = [line["positive"] for line in lines]
    queries = model.encode([line["query"] for line in lines], is_query=True, convert_to_tensor=True)
    scores = np.array(
        [
            [
                float(colbert_scores(query[None], vectors[None]))
                for vectors in model.encode(documents, is_query=False, convert_to_tensor=True)
            ]
            for query in queries
        ]
    )
    tolerance = 0.02 if half else 1e-4
    for number, row in enumerate(made(tmp_path / "out")):
        own = scores[number].copy()
        own[number] = -np.inf
        best = np.argsort(-own, kind="stable")[:6]
        assert np.allclose(row["scores"], [scores[number, number], *own[best]], atol=tolerance)
        if not half:
            assert row["negatives"] == [documents[place] for place in best]
    mining = page(tmp_path / "out")["mining"]
    assert (mining["similarity"], mining["index"]) == ("maxsim", "exact")


def test_plaid_finds_most_of_them_with_exact_scores(tmp_path, colbert):
    pytest.importorskip("pylate")
    drawn = np.random.default_rng(0)
    lines = [
        {
            "query": " ".join(drawn.choice(WORDS, 4)),
            "positive": f"{number} " + " ".join(drawn.choice(WORDS, 12)),
        }
        for number in range(300)
    ]
    rows = write(tmp_path / "rows.jsonl", lines)
    found = {}
    for index in ("exact", "plaid"):
        result = mine(
            tmp_path / index,
            f"file:{rows}",
            f"file:{colbert}",
            family="late_interaction",
            index=index,
            num_negatives=10,
            filters=FREE,
        )
        assert result.state == "succeeded", result.end_reason
        found[index] = made(tmp_path / index)
    same = 0
    for one, other in zip(found["exact"], found["plaid"], strict=True):
        assert one["scores"][0] == pytest.approx(other["scores"][0])
        exact = dict(zip(one["negatives"], one["scores"][1:], strict=True))
        for text, score in zip(other["negatives"], other["scores"][1:], strict=True):
            if text in exact:
                same += 1
                assert score == pytest.approx(exact[text], abs=1e-4)
        assert other["scores"][1:] == sorted(other["scores"][1:], reverse=True)
    assert same > 0.8 * 10 * len(lines)
    assert page(tmp_path / "plaid")["mining"]["index"] == "plaid"


def test_a_model_of_another_family_is_refused(rows_file, tiny_model, cross_encoder, tmp_path):
    two = make_cross_encoder(tmp_path / "two", tiny_model, labels=2)
    for model, sentence in ((tiny_model, "no trained head"), (two, "2 labels")):
        filters = {"cross_encoder": {"model": f"file:{model}"}}
        result = mine(tmp_path / "out", f"file:{rows_file}", f"file:{tiny_model}", filters=filters)
        assert result.end_reason.code == "bad_model"
        assert sentence in result.end_reason.message


def test_a_model_of_another_family_is_told_by_name(rows_file, tiny_model, colbert, cross_encoder, tmp_path):
    def run(model: Path, **fields):
        return mine(tmp_path / "out", f"file:{rows_file}", f"file:{model}", **fields)

    assert "late-interaction model" in run(colbert).end_reason.message
    plain = run(tiny_model, family="late_interaction")
    assert plain.end_reason.code == "bad_model"
    assert "no trained projection" in plain.end_reason.message
    reporter = RecordingReporter()
    run(cross_encoder, reporter=reporter)
    told = [event.data.message for event in reporter.events if event.type == "notice"]
    assert any("made to score or classify" in sentence for sentence in told)


# -- faiss ----------------------------------------------------------------------------------------------


def test_faiss_finds_most_of_the_nearest(tmp_path, tiny_model):
    pytest.importorskip("faiss")
    drawn = np.random.default_rng(1)
    lines = [
        {
            "query": " ".join(drawn.choice(WORDS, 3)),
            "positive": f"{number} " + " ".join(drawn.choice(WORDS, 9)),
        }
        for number in range(600)
    ]
    rows = write(tmp_path / "rows.jsonl", lines)
    found = {}
    for index in ("exact", "faiss"):
        result = mine(
            tmp_path / index, f"file:{rows}", f"file:{tiny_model}", index=index, num_negatives=5, filters=FREE
        )
        assert result.state == "succeeded", result.end_reason
        found[index] = made(tmp_path / index)
    same = sum(
        len(set(one["negatives"]) & set(other["negatives"]))
        for one, other in zip(found["exact"], found["faiss"], strict=True)
    )
    assert same > 0.8 * 5 * len(lines)
    assert page(tmp_path / "faiss")["mining"]["index"] == "faiss"


# -- preferences ----------------------------------------------------------------------------------------


@pytest.fixture
def of_two_kinds(tmp_path) -> Path:
    lines = [
        {"query": f"what is {word}", "positive": f"{word} it is", "category": "even" if number % 2 else "odd"}
        for number, word in enumerate(WORDS)
    ]
    return write(tmp_path / "kinds.jsonl", lines)


@pytest.mark.parametrize("prefer", ["other_category", "same_category"])
def test_preferred_ones_come_first_and_others_fill_up(of_two_kinds, tiny_model, tmp_path, prefer):
    result = mine(
        tmp_path / "out",
        f"file:{of_two_kinds}",
        f"file:{tiny_model}",
        prefer=prefer,
        num_negatives=15,
        filters=FREE,
    )
    assert result.state == "succeeded", result.end_reason
    rows = made(tmp_path / "out")
    category = {row["positive"]: row["category"] for row in rows}
    for row in rows:
        same = sum(category[text] == row["category"] for text in row["negatives"])
        # 13 of each: of its own category all but its positive.
        assert (same, len(row["negatives"])) == ((12, 15) if prefer == "same_category" else (2, 15))
        assert row["ranks"] == sorted(row["ranks"])


def test_another_dataset_is_preferred(rows_file, tiny_model, tmp_path):
    words = [{"_id": f"c{number}", "text": f"{word} is elsewhere"} for number, word in enumerate(WORDS[:3])]
    other = write(tmp_path / "other.jsonl", words)
    both = [f"file:{rows_file}", f"file:{other}"]
    result = mine(
        tmp_path / "out", both[0], f"file:{tiny_model}", corpus=both, prefer="other_dataset", filters=FREE
    )
    assert result.state == "succeeded", result.end_reason
    for row in made(tmp_path / "out"):
        assert sum(text.endswith("elsewhere") for text in row["negatives"]) == 3
        assert len(row["negatives"]) == 4


def test_a_preference_that_nobody_can_tell_is_refused(rows_file, tiny_model, tmp_path):
    for prefer, sentence in (
        ("other_category", "no document has a category"),
        ("other_dataset", "one dataset"),
    ):
        result = mine(tmp_path / "out", f"file:{rows_file}", f"file:{tiny_model}", prefer=prefer)
        assert result.end_reason.code == "bad_data"
        assert sentence in result.end_reason.message


# -- the cross-encoder's check --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def teacher(cross_encoder):
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(cross_encoder), device="cpu")
    known: dict[tuple[str, str], float] = {}

    def score(query: str, document: str) -> float:
        if (query, document) not in known:
            known[query, document] = float(model.predict([(query, document)], show_progress_bar=False)[0])
        return known[query, document]

    return score


@pytest.mark.parametrize("sampling", ["top", "random"])
def test_the_check_takes_the_next_in_turn(rows_file, tiny_model, cross_encoder, teacher, tmp_path, sampling):
    """Against one pair after the other: who is in turn and below the bar is a negative."""
    check = {"model": f"file:{cross_encoder}", "positive_aware": None, "absolute_margin": 0.0}
    common = {"sampling": sampling, "seed": 3}
    plain = mine(
        tmp_path / "plain", f"file:{rows_file}", f"file:{tiny_model}", num_negatives=25, filters=FREE
    )
    assert plain.state == "succeeded"
    result = mine(
        tmp_path / "out",
        f"file:{rows_file}",
        f"file:{tiny_model}",
        num_negatives=3,
        filters={**FREE, "cross_encoder": {**check, "keep_scores": True}},
        **common,
    )
    assert result.state == "succeeded", result.end_reason
    kept, taken_out = 0, 0
    for number, (every, row) in enumerate(zip(made(tmp_path / "plain"), made(tmp_path / "out"), strict=True)):
        bar = teacher(row["query"], row["positive"])
        turn = range(len(every["negatives"]))
        if sampling == "random":
            turn = np.random.default_rng((3, number)).permutation(len(every["negatives"])).tolist()
        expected: list[int] = []
        for place in turn:
            if len(expected) == 3:
                break
            if teacher(row["query"], every["negatives"][place]) <= bar:
                expected.append(place)
            else:
                taken_out += 1
        assert row["negatives"] == [every["negatives"][place] for place in sorted(expected)]
        assert row["scores"][0] == pytest.approx(bar, abs=1e-5)
        for text, score in zip(row["negatives"], row["scores"][1:], strict=True):
            assert score == pytest.approx(teacher(row["query"], text), abs=1e-5)
        kept += len(expected)
    mining = page(tmp_path / "out")["mining"]
    assert mining["removed"]["cross-encoder"] == taken_out > 0
    # Nothing was scored that nobody needed: each positive once, and who was in turn.
    assert mining["cross_encoder"]["pairs"] == 26 + kept + taken_out
    assert len(mining["cross_encoder"]["weights_sha256"]) == 64


def test_scores_do_not_depend_on_the_batch(cross_encoder, teacher):
    from core.engine.batching import Packing
    from core.families.cross_encoder import score_with
    from core.families.cross_encoder.pair_model import read_pair_model

    drawn = np.random.default_rng(0)
    pairs = [
        (
            " ".join(drawn.choice(WORDS, drawn.integers(1, 6))),
            " ".join(drawn.choice(WORDS, drawn.integers(1, 90))),
        )
        for _ in range(40)
    ]
    model = read_pair_model(str(cross_encoder), device="cpu").eval()
    found = score_with(model, Packing(150), lambda: None)(pairs)
    assert np.allclose(found, [teacher(*pair) for pair in pairs], atol=1e-5)
    assert found.std() > 0.01


def test_memory_that_suffices_for_one_pair_suffices_for_all(cross_encoder, teacher, monkeypatch):
    from core.engine.batching import Packing
    from core.families.cross_encoder import score_with
    from core.families.cross_encoder.pair_model import read_pair_model

    model = read_pair_model(str(cross_encoder), device="cpu").eval()
    forward = model.model.forward

    def limited(**inputs):
        if len(inputs["input_ids"]) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(**inputs)

    monkeypatch.setattr(model.model, "forward", limited)
    pairs = [("what is river", f"{word} is river") for word in WORDS]
    found = score_with(model, Packing(10_000), lambda: None)(pairs)
    assert np.allclose(found, [teacher(*pair) for pair in pairs], atol=1e-5)


def test_the_models_of_the_families_are_checked_before_they_are_loaded(tmp_path, rows_file):
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"")
    result = mine(
        tmp_path / "out", f"file:{rows_file}", f"file:{tmp_path / 'pickled'}", family="late_interaction"
    )
    assert result.end_reason.code == "bad_model"
    assert "pickle" in result.end_reason.message
