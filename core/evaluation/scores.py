"""What an evaluation has found: means to look at, and every query's own value to compare by."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from core.data.judged import RetrievalSet
from core.evaluation.metrics import Run, depth_of, evaluate_run, mean
from core.evaluation.triplets import Score, score_triplets


@dataclass(frozen=True)
class Scores:
    """``means`` by metric; ``by_query``: the same, metric -> query id -> value. The mean of a triplet metric
    is over triplets, and a query's value over its own."""

    means: dict[str, float] = field(default_factory=dict)
    by_query: dict[str, dict[str, float]] = field(default_factory=dict)


def judge(
    rank: Callable[[RetrievalSet, int], Run], score: Score, dataset: RetrievalSet, metrics: list[str]
) -> Scores:
    """Every metric of a dataset: of rankings ``depth_of`` them deep, and of triplets, where it has any."""
    of_rankings = [metric for metric in metrics if "@" in metric]
    by_query: dict[str, dict[str, float]] = {}
    if of_rankings:
        by_query |= evaluate_run(dataset.qrels, rank(dataset, depth_of(of_rankings)), of_rankings)
    means = {metric: mean(values) for metric, values in by_query.items()}
    triplets = score_triplets(score, dataset, metrics)
    return Scores(means | triplets.means, by_query | triplets.by_query)


def by_category(values: Mapping[str, float], categories: Mapping[str, str]) -> dict[str, tuple[float, int]]:
    """Category -> (mean, number of queries), by name. Queries without a category are in none."""
    found: dict[str, list[float]] = defaultdict(list)
    for query, value in values.items():
        if query in categories:
            found[categories[query]].append(value)
    return {name: (sum(some) / len(some), len(some)) for name, some in sorted(found.items())}


def unjudged_share(qrels: Mapping[str, Mapping[str, int]], run: Run, depth: int) -> float:
    """Of the first ``depth`` documents of judged queries, those about which nobody has said anything. Where
    it is large, a model is punished for what the judges have not seen."""
    seen = unjudged = 0
    for query, grades in qrels.items():
        documents = run.get(query, {})
        for name in sorted(documents, key=lambda name: (-documents[name], name))[:depth]:
            seen += 1
            unjudged += name not in grades
    return unjudged / seen if seen else 0.0
