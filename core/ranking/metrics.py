"""Ranking metrics, computed by trec_eval's own code (pytrec-eval)."""

from collections.abc import Mapping

import numpy as np
import pytrec_eval

Run = dict[str, dict[str, float]]
"""query id -> document id -> score"""

_MEASURES = {"ndcg": "ndcg_cut", "recall": "recall", "precision": "P", "map": "map_cut"}


def depth_of(metrics: list[str]) -> int:
    """The number of documents a query that the metrics look at."""
    return max(int(metric.partition("@")[2]) for metric in metrics)


def evaluate_run(
    qrels: dict[str, dict[str, int]], run: Run, metrics: list[str]
) -> dict[str, dict[str, float]]:
    """Each metric for each judged query: ``{"ndcg@10": {"q1": 0.63, ...}}``.

    A query without a ranking counts as 0. MRR@k is the reciprocal rank within the first k.
    """
    judged = {query: grades for query, grades in qrels.items() if any(grade > 0 for grade in grades.values())}
    scores = {}
    for metric in metrics:
        name, _, cut = metric.partition("@")
        if name == "mrr":
            measure = key = "recip_rank"
            ranked = {query: _top(documents, int(cut)) for query, documents in run.items()}
        else:
            measure, key, ranked = f"{_MEASURES[name]}.{cut}", f"{_MEASURES[name]}_{cut}", run
        found = pytrec_eval.RelevanceEvaluator(judged, {measure}).evaluate(ranked)
        scores[metric] = {query: found[query][key] if query in found else 0.0 for query in judged}
    return scores


def mean(scores: dict[str, float]) -> float:
    """The mean over queries; 0 when there are none."""
    return sum(scores.values()) / len(scores) if scores else 0.0


def in_order(documents: Mapping[str, float]) -> list[str]:
    """The documents of a ranking as trec_eval orders them.

    By falling score, compared in single precision; equal scores by falling document id.
    """
    return sorted(documents, key=lambda name: (np.float32(documents[name]), name), reverse=True)


def _top(documents: Mapping[str, float], count: int) -> dict[str, float]:
    return {name: documents[name] for name in in_order(documents)[:count]}
