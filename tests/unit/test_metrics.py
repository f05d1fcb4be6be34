"""Metrics against numbers worked out by hand."""

import math
from functools import partial

import pytest
import torch

from core.data.judged import RetrievalSet
from core.evaluation.metrics import evaluate_run, mean
from core.evaluation.retrieval import evaluate_retrieval, rank, search

QRELS = {"q1": {"a": 1}, "q2": {"b": 2, "c": 1}, "unjudged": {"a": 0}}
RUN = {"q1": {"x": 0.9, "a": 0.8}, "q2": {"b": 0.5, "y": 0.4, "c": 0.3}}


def test_by_hand():
    found = evaluate_run(QRELS, RUN, ["ndcg@10", "mrr@10", "mrr@1", "recall@2", "precision@2", "map@10"])
    assert found["ndcg@10"]["q1"] == pytest.approx(1 / math.log2(3))
    ideal = 2 + 1 / math.log2(3)
    assert found["ndcg@10"]["q2"] == pytest.approx((2 + 1 / math.log2(4)) / ideal)
    assert found["mrr@10"] == {"q1": 0.5, "q2": 1.0}
    assert found["mrr@1"] == {"q1": 0.0, "q2": 1.0}
    assert found["recall@2"] == {"q1": 1.0, "q2": 0.5}
    assert found["precision@2"] == {"q1": 0.5, "q2": 0.5}
    assert found["map@10"]["q2"] == pytest.approx((1 + 2 / 3) / 2)


def test_a_query_without_a_ranking_counts_as_zero():
    assert mean(evaluate_run(QRELS, {"q1": {"a": 1.0}}, ["ndcg@10"])["ndcg@10"]) == pytest.approx(0.5)


def test_blocked_search_equals_the_full_matrix(monkeypatch):
    monkeypatch.setattr("core.evaluation.retrieval._SCORES_PER_BLOCK", 64)
    queries, documents = torch.randn(37, 8), torch.randn(50, 8)
    scores, indices = search(queries, documents, 10)
    expected = (queries @ documents.T).topk(10)
    assert torch.equal(indices, expected.indices)
    assert torch.allclose(scores, expected.values)
    assert search(queries, documents[:3], 10)[1].shape == (37, 3)


def test_a_perfect_encoder_scores_one():
    dataset = RetrievalSet({"q": "b"}, {"1": "a", "2": "b"}, {"q": {"2": 1}})
    found = evaluate_retrieval(
        partial(
            rank, lambda texts, role: torch.tensor([[1.0, 0.0] if t == "a" else [0.0, 1.0] for t in texts])
        ),
        dataset,
        ["ndcg@10", "recall@1"],
    )
    assert found == {"ndcg@10": 1.0, "recall@1": 1.0}


def test_what_a_query_must_leave_out_is_not_ranked():
    vectors = {"q": [1.0, 0.0], "best": [1.0, 0.0], "next": [0.9, 0.1], "last": [0.0, 1.0]}
    dataset = RetrievalSet(
        {"q": "q"},
        {name: name for name in ("best", "next", "last")},
        {"q": {"next": 1}},
        excluded={"q": {"best"}},
    )
    found = evaluate_retrieval(
        partial(rank, lambda texts, _: torch.tensor([vectors[text] for text in texts])),
        dataset,
        ["mrr@1", "recall@1"],
    )
    assert found == {"mrr@1": 1.0, "recall@1": 1.0}
