"""How a model scores what answers a query, against what was judged not to."""

from collections.abc import Callable, Sequence

import numpy as np

from core.data.judged import RetrievalSet
from core.spec.train import TRIPLET_METRICS

Score = Callable[[Sequence[tuple[str, str]]], np.ndarray]
"""(query, document) pairs -> scores [pairs]: a similarity, or a cross-encoder's."""

_MOST = 50_000


def triplets_of(dataset: RetrievalSet) -> list[tuple[str, str, str]]:
    """(query, relevant document, judged irrelevant document), by id; no more than fifty thousand."""
    found = []
    for query, grades in dataset.qrels.items():
        negatives = [name for name, grade in grades.items() if grade <= 0]
        for positive in (name for name, grade in grades.items() if grade > 0):
            found += [(query, positive, negative) for negative in negatives]
        if len(found) >= _MOST:
            return found[:_MOST]
    return found


def evaluate_triplets(score: Score, dataset: RetrievalSet, metrics: list[str]) -> dict[str, float]:
    """The share of triplets whose positive has the higher score, and the means of the positives' and of the
    negatives' scores and of their difference. Empty without triplets, or if no such metric is asked for."""
    asked = [metric for metric in metrics if metric in TRIPLET_METRICS]
    triplets = triplets_of(dataset) if asked else []
    if not triplets:
        return {}
    pairs = {pair: 0 for query, *documents in triplets for pair in ((query, name) for name in documents)}
    for number, pair in enumerate(pairs):
        pairs[pair] = number
    scores = score([(dataset.queries[query], dataset.corpus[name]) for query, name in pairs])
    of_positives = scores[[pairs[query, positive] for query, positive, _ in triplets]].astype(np.float64)
    of_negatives = scores[[pairs[query, negative] for query, _, negative in triplets]].astype(np.float64)
    found = {
        "triplet_accuracy": float((of_positives > of_negatives).mean()),
        "positive_score": float(of_positives.mean()),
        "negative_score": float(of_negatives.mean()),
        "margin": float((of_positives - of_negatives).mean()),
    }
    return {metric: found[metric] for metric in asked}
