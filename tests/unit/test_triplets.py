"""Triplets of what was judged."""

import numpy as np
import pytest

from core.data.retrieval_sets.judgments import RetrievalSet
from core.data.rows.record import TrainingRow
from core.data.sources.retrieval import retrieval_of_rows
from core.ranking.triplets import score_triplets, triplets_of

METRICS = ["ndcg@10", "triplet_accuracy", "positive_score", "negative_score", "margin"]


def test_against_a_hand_computed_case():
    dataset = RetrievalSet(
        {"q": "a", "r": "b", "alone": "c"},
        {name: name for name in "wxyz"},
        {"q": {"w": 2, "x": 1, "y": 0}, "r": {"y": 1, "z": 0, "x": 0}, "alone": {"w": 1}},
    )
    scores = {
        ("a", "w"): 0.9,
        ("a", "x"): 0.2,
        ("a", "y"): 0.5,
        ("b", "y"): 0.4,
        ("b", "z"): 0.4,
        ("b", "x"): 0.1,
    }
    asked = []

    def score(pairs):
        asked.extend(pairs)
        return np.array([scores[pair] for pair in pairs], np.float32)

    judged = score_triplets(score, dataset, METRICS)
    found = judged.means
    assert sorted(asked) == sorted(scores)  # each once
    positives, negatives = [0.9, 0.2, 0.4, 0.4], [0.5, 0.5, 0.4, 0.1]
    assert found["triplet_accuracy"] == 2 / 4  # a tie is no win
    assert found["positive_score"] == pytest.approx(sum(positives) / 4)
    assert found["negative_score"] == pytest.approx(sum(negatives) / 4)
    assert found["margin"] == pytest.approx((sum(positives) - sum(negatives)) / 4)
    assert judged.by_query["triplet_accuracy"] == {"q": 1 / 2, "r": 1 / 2}
    assert judged.by_query["negative_score"]["r"] == pytest.approx(0.25)
    assert sorted(judged.positives.tolist()) == pytest.approx([0.2, 0.4, 0.9])
    assert sorted(judged.negatives.tolist()) == pytest.approx([0.1, 0.4, 0.5])
    assert score_triplets(score, dataset, ["ndcg@10"]).means == {}


def test_negatives_of_rows_are_judged_unless_they_answer():
    rows = [TrainingRow("q", "good", ["bad", "better"]), TrainingRow("q", "better", ["worse"])]
    dataset = retrieval_of_rows(rows)
    texts = {(dataset.corpus[one], dataset.corpus[other]) for _, one, other in triplets_of(dataset)}
    assert texts == {("good", "bad"), ("good", "worse"), ("better", "bad"), ("better", "worse")}
