"""Search equals brute force; shards are made once; each filter against a case that was worked out by hand."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.ranking.negatives.filters import Candidates, bar_of, filter_candidates, in_turn
from core.ranking.search import search, shard_vectors
from core.retrieval import encode as encode_room
from core.retrieval.encode import encode_to_shards
from core.spec.parts.filters import Bar, Filters


@given(
    queries=st.integers(1, 30),
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    depth=st.integers(1, 60),
    block=st.integers(1, 300),
    seed=st.integers(0, 100),
    coarse=st.booleans(),
)
@settings(max_examples=80)
def test_search_equals_brute_force(queries, sizes, depth, block, seed, coarse):
    generator = np.random.default_rng(seed)
    # Whole numbers make many equal scores: their order must not depend on the shards.
    draw = (lambda shape: generator.integers(-2, 3, shape)) if coarse else generator.standard_normal
    asked = np.asarray(draw((queries, 8)), np.float32)
    shards = [np.asarray(draw((size, 8)), np.float32) for size in sizes]
    found = search(asked, shards, depth, scores_per_block=block)
    scores = asked @ np.concatenate(shards).T
    count = min(depth, scores.shape[1])
    expected = -np.sort(-scores, axis=1)[:, :count]
    assert np.allclose(found.scores[:, :count], expected, atol=1e-5)
    assert (found.indices[:, count:] == -1).all()
    assert np.allclose(np.take_along_axis(scores, found.indices[:, :count], axis=1), expected, atol=1e-5)
    for row in found.indices[:, :count]:
        assert len(set(row.tolist())) == count
    if coarse:  # equal scores: in the order of the documents
        assert (found.indices[:, :count] == np.argsort(-scores, axis=1, kind="stable")[:, :count]).all()


def test_shards_are_made_once_whoever_asks(tmp_path, monkeypatch):
    monkeypatch.setattr(encode_room, "SHARD", 4)
    asked: list[int] = []

    def encode(texts, role):
        asked.append(len(texts))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return torch.tensor([[float(len(text)), 1.0] for text in texts])

    texts = [f"text {'x' * number}" for number in range(10)]
    with pytest.raises(KeyboardInterrupt):
        encode_to_shards(texts, "document", encode, "model", tmp_path)
    told: list[tuple[int, bool]] = []
    paths = encode_to_shards(
        texts, "document", encode, "model", tmp_path, tell=lambda size, known: told.append((size, known))
    )
    assert told == [(4, True), (4, True), (2, False)]
    assert np.concatenate(list(shard_vectors(paths)))[:, 0].tolist() == [len(text) for text in texts]
    before = len(asked)
    encode_to_shards(texts, "document", encode, "model", tmp_path)
    assert len(asked) == before
    # Another model, another role, other texts: others.
    for arguments in ((texts, "document", encode, "other"), (texts, "query", encode, "model")):
        encode_to_shards(*arguments, tmp_path)
    encode_to_shards([*texts[:8], "changed", "too"], "document", encode, "model", tmp_path)
    assert asked[before:] == [4, 4, 2, 4, 4, 2, 2]
    assert not list(tmp_path.rglob(".*.npy"))


DOCUMENTS = np.array([7, 3, 9, 1, 4, 8, -1])
SCORES = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.1, -np.inf])


@pytest.mark.parametrize(
    ("limits", "expected", "removed"),
    [
        ({}, [9, 1, 4, 8], {"answers": 1, "too near the positive": 1}),
        ({"positive_aware": None}, [7, 9, 1, 4, 8], {"answers": 1}),
        ({"positive_aware": None, "range_min": 2}, [1, 4, 8], {"answers": 1, "range_min": 2}),
        ({"positive_aware": None, "range_max": 2}, [7, 9], {"answers": 1, "range_max": 3}),
        ({"positive_aware": None, "min_score": 0.5}, [7, 9, 1, 4], {"answers": 1, "min_score": 1}),
        ({"positive_aware": None, "max_score": 0.65}, [1, 4, 8], {"answers": 1, "too near the positive": 2}),
        (
            {"positive_aware": None, "absolute_margin": 0.25},
            [4, 8],
            {"answers": 1, "too near the positive": 3},
        ),
        (
            {"positive_aware": None, "relative_margin": 0.2},
            [1, 4, 8],
            {"answers": 1, "too near the positive": 2},
        ),
        ({"positive_aware": 0.5}, [8], {"answers": 1, "too near the positive": 4}),
    ],
)
def test_each_filter(limits, expected, removed):
    counts: Counter[str] = Counter()
    found = filter_candidates(DOCUMENTS, SCORES, DOCUMENTS == 3, [0.8], Filters(**limits), counts)
    assert found.documents.tolist() == expected
    assert {name: count for name, count in counts.items() if count} == removed


def test_margins_lower_the_bar_of_negative_scores_too():
    for asked in (Bar(relative_margin=0.1, positive_aware=None), Bar(positive_aware=0.9)):
        assert bar_of(asked, -0.5) == pytest.approx(-0.55)
        assert bar_of(asked, 0.5) == pytest.approx(0.45)
        assert bar_of(asked, 0.0) == 0.0


def test_the_bar_is_the_lowest_of_all_positives():
    found = filter_candidates(
        DOCUMENTS, SCORES, np.isin(DOCUMENTS, [3, 4]), [0.8, 0.5], Filters(positive_aware=1.0), Counter()
    )
    assert found.documents.tolist() == [8]


@given(
    size=st.integers(0, 30),
    answers=st.sets(st.integers(0, 40)),
    sampling=st.sampled_from(["top", "random"]),
    seed=st.integers(0, 9),
)
@settings(max_examples=100)
def test_no_answer_is_ever_a_negative(size, answers, sampling, seed):
    generator = np.random.default_rng(seed)
    documents = generator.permutation(41)[:size]
    scores = -np.sort(-generator.standard_normal(size))
    found = filter_candidates(
        documents, scores, np.isin(documents, list(answers)), [0.5], Filters(), Counter()
    )
    assert not set(found.documents.tolist()) & answers
    assert (np.diff(found.scores) <= 0).all()
    turn = in_turn(found, sampling, (seed, 1))
    assert sorted(turn.tolist()) == list(range(len(found.documents)))
    assert turn.tolist() == in_turn(found, sampling, (seed, 1)).tolist()
    if sampling == "top":
        assert turn.tolist() == list(range(len(turn)))
    preferred = generator.random(len(turn)) < 0.5
    before = in_turn(found, sampling, (seed, 1), preferred)
    liked = [place for place in turn if preferred[place]]
    assert before.tolist() == [*liked, *(place for place in turn if not preferred[place])]


def test_ranks_are_those_among_what_is_no_answer():
    found = filter_candidates(DOCUMENTS, SCORES, np.isin(DOCUMENTS, [7, 9]), [1.0], Filters(), Counter())
    assert isinstance(found, Candidates)
    assert dict(zip(found.documents.tolist(), found.ranks.tolist(), strict=True)) == {3: 0, 1: 1, 4: 2, 8: 3}
