"""Metrics against numbers worked out by hand."""

import math
from functools import partial

import numpy as np
import pytest
import torch

from core.data.retrieval_sets.judged_folders import read_judged
from core.data.retrieval_sets.judgments import RetrievalSet
from core.ranking.metrics import evaluate_run, mean
from core.ranking.rank_set import rank_by_vectors
from core.ranking.scores import by_category, judge, unjudged_share
from core.ranking.search import search
from tests.conftest import SHARED

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


def test_blocked_search_equals_the_full_matrix():
    queries, documents = torch.randn(37, 8), torch.randn(50, 8)
    nearest = search(queries, [documents], 10, scores_per_block=64)
    expected = (queries @ documents.T).topk(10)
    assert np.array_equal(nearest.indices, expected.indices)
    assert np.allclose(nearest.scores, expected.values)
    few = search(queries, [documents[:3]], 10)
    assert (few.indices[:, :3] >= 0).all()
    assert (few.indices[:, 3:] == -1).all()


def nobody(_pairs):
    raise AssertionError("no triplet metric is asked for")


def test_a_perfect_encoder_scores_one():
    dataset = RetrievalSet({"q": "b"}, {"1": "a", "2": "b"}, {"q": {"2": 1}})
    found = judge(
        partial(
            rank_by_vectors,
            lambda texts, role: torch.tensor([[1.0, 0.0] if t == "a" else [0.0, 1.0] for t in texts]),
        ),
        nobody,
        dataset,
        ["ndcg@10", "recall@1"],
    )
    assert found.means == {"ndcg@10": 1.0, "recall@1": 1.0}


def test_what_a_query_must_leave_out_is_not_ranked():
    vectors = {"q": [1.0, 0.0], "best": [1.0, 0.0], "next": [0.9, 0.1], "last": [0.0, 1.0]}
    dataset = RetrievalSet(
        {"q": "q"},
        {name: name for name in ("best", "next", "last")},
        {"q": {"next": 1}},
        excluded={"q": {"best"}},
    )
    found = judge(
        partial(rank_by_vectors, lambda texts, _: torch.tensor([vectors[text] for text in texts])),
        nobody,
        dataset,
        ["mrr@1", "recall@1"],
    )
    assert found.means == {"mrr@1": 1.0, "recall@1": 1.0}


def test_categories_have_their_own_means():
    values, categories = {"a": 1.0, "b": 0.0, "c": 0.5, "d": 0.9}, {"a": "x", "b": "x", "c": "y"}
    assert by_category(values, categories) == {"x": (0.5, 2), "y": (0.5, 1)}


def test_what_nobody_has_judged_is_counted():
    qrels = {"q": {"a": 1, "b": 0}, "r": {"a": 1}}
    run = {"q": {"a": 3.0, "b": 2.0, "c": 1.0}, "r": {"b": 2.0, "a": 1.0}, "not judged": {"z": 1.0}}
    assert unjudged_share(qrels, run, 2) == 1 / 4
    assert unjudged_share(qrels, {}, 2) == 0


def test_random_runs_score_as_trec_eval_says():
    """Graded judgments, judged irrelevant ones, ties and queries without a ranking."""
    import pytrec_eval

    generator = np.random.default_rng(0)
    documents = [f"d{number}" for number in range(60)]
    qrels = {
        f"q{query}": {
            name: int(generator.integers(0, 4)) for name in generator.choice(documents, 12, replace=False)
        }
        | {"d0": 1}
        for query in range(40)
    }
    run = {
        f"q{query}": {
            str(name): float(generator.integers(0, 20)) / 4
            for name in generator.choice(documents, int(generator.integers(1, 50)), replace=False)
        }
        for query in range(38)
    }
    for ours, theirs in (
        ("ndcg@10", "ndcg_cut_10"),
        ("recall@20", "recall_20"),
        ("precision@5", "P_5"),
        ("map@100", "map_cut_100"),
    ):
        found = evaluate_run(qrels, run, [ours])[ours]
        expected = pytrec_eval.RelevanceEvaluator(qrels, {theirs}).evaluate(run)
        for query in qrels:
            wanted = expected[query][theirs] if query in expected else 0.0
            assert found[query] == pytest.approx(wanted, abs=1e-6)


@pytest.mark.skipif(not SHARED.exists(), reason="the shared data are not beside the checkout")
def test_scifacts_judgments_score_as_trec_eval_says():
    """Random runs over the real qrels, whole and with queries that have no ranking."""
    import pytrec_eval

    dataset = read_judged(SHARED / "scifact", "test")
    generator = np.random.default_rng(1)
    names = list(dataset.corpus)
    run = {}
    for query, grades in list(dataset.qrels.items())[:-3]:
        drawn = [names[number] for number in generator.integers(0, len(names), 120)]
        run[query] = {name: float(generator.random()) for name in [*drawn, *grades]}
    measures = {
        "ndcg@10": "ndcg_cut_10",
        "recall@100": "recall_100",
        "map@100": "map_cut_100",
        "precision@10": "P_10",
    }
    found = evaluate_run(dataset.qrels, run, [*measures, "mrr@1000"])
    expected = pytrec_eval.RelevanceEvaluator(dataset.qrels, {*measures.values(), "recip_rank"}).evaluate(run)
    for ours, theirs in {**measures, "mrr@1000": "recip_rank"}.items():
        for query in dataset.qrels:
            wanted = expected[query][theirs] if query in expected else 0.0
            assert found[ours][query] == pytest.approx(wanted, abs=1e-6)
