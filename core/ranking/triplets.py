"""How a model scores what answers a query, against what was judged not to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from core.data.retrieval_sets.judgments import RetrievalSet
from core.spec.parts.evaluation import TRIPLET_METRICS

Score = Callable[[Sequence[tuple[str, str]]], np.ndarray]
"""(query, document) pairs -> scores [pairs]: a similarity, or a cross-encoder's."""

_MOST = 50_000


@dataclass(frozen=True)
class TripletScores:
    """``means`` over triplets; ``by_query``: metric -> query id -> the mean over its own. ``positives`` and
    ``negatives`` are the scores themselves, one a pair."""

    means: dict[str, float] = field(default_factory=dict)
    by_query: dict[str, dict[str, float]] = field(default_factory=dict)
    positives: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))
    negatives: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))


def triplets_of(dataset: RetrievalSet) -> list[tuple[str, str, str]]:
    """(query, relevant document, judged irrelevant document), by id; no more than fifty thousand.

    A document that the query's ranking leaves out is none of them.
    """
    found = []
    for query, judged in dataset.qrels.items():
        excluded = dataset.excluded.get(query, ())
        grades = {name: grade for name, grade in judged.items() if name not in excluded}
        negatives = [name for name, grade in grades.items() if grade <= 0]
        for positive in (name for name, grade in grades.items() if grade > 0):
            found += [(query, positive, negative) for negative in negatives]
        if len(found) >= _MOST:
            return found[:_MOST]
    return found


def score_triplets(score: Score, dataset: RetrievalSet, metrics: list[str]) -> TripletScores:
    """The share of triplets whose positive has the higher score, and the means of the positives' and of the
    negatives' scores and of their difference. Empty without triplets, or if no such metric is asked for."""
    asked = [metric for metric in metrics if metric in TRIPLET_METRICS]
    triplets = triplets_of(dataset) if asked else []
    if not triplets:
        return TripletScores()
    pairs = list(
        dict.fromkeys(
            pair for query, *documents in triplets for pair in ((query, name) for name in documents)
        )
    )
    place = {pair: number for number, pair in enumerate(pairs)}
    scores = score([(dataset.queries[query], dataset.corpus[name]) for query, name in pairs])
    positives = scores[[place[query, positive] for query, positive, _ in triplets]].astype(np.float64)
    negatives = scores[[place[query, negative] for query, _, negative in triplets]].astype(np.float64)
    of_triplets = {
        "triplet_accuracy": (positives > negatives).astype(np.float64),
        "positive_score": positives,
        "negative_score": negatives,
        "margin": positives - negatives,
    }
    queries, owner = np.unique([query for query, _, _ in triplets], return_inverse=True)
    counts = np.bincount(owner)
    relevant = np.array([dataset.qrels[query][name] > 0 for query, name in pairs])
    return TripletScores(
        {metric: float(of_triplets[metric].mean()) for metric in asked},
        {
            metric: dict(
                zip(
                    queries.tolist(),
                    (np.bincount(owner, weights=of_triplets[metric]) / counts).tolist(),
                    strict=True,
                )
            )
            for metric in asked
        },
        scores[relevant],
        scores[~relevant],
    )
