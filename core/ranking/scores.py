"""Scores of one evaluation: means, and the value of each query to compare by."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from core.data.retrieval_sets.judgments import RetrievalSet
from core.ranking.metrics import Run, depth_of, evaluate_run, in_order, mean
from core.ranking.triplets import Score, TripletScores, score_triplets


@dataclass(frozen=True)
class Scores:
    """``means`` by metric; ``by_query``: the same, metric -> query id -> value. The mean of a triplet metric
    is over triplets, and a query's value over its own."""

    means: dict[str, float] = field(default_factory=dict)
    by_query: dict[str, dict[str, float]] = field(default_factory=dict)

    def with_triplets(self, triplets: TripletScores) -> "Scores":
        return Scores(self.means | triplets.means, self.by_query | triplets.by_query)


def ranking_metrics(metrics: Sequence[str]) -> list[str]:
    """Those that look at rankings down to a depth."""
    return [metric for metric in metrics if "@" in metric]


def score_run(run: Run, dataset: RetrievalSet, metrics: Sequence[str]) -> Scores:
    """Of rankings, over all judged queries."""
    asked = ranking_metrics(metrics)
    by_query = evaluate_run(dataset.qrels, run, asked) if asked else {}
    return Scores({metric: mean(values) for metric, values in by_query.items()}, by_query)


def judge(
    rank: Callable[[RetrievalSet, int], Run], score: Score, dataset: RetrievalSet, metrics: list[str]
) -> Scores:
    """Every metric of a dataset: of rankings as deep as they look, and of triplets, where it has any."""
    asked = ranking_metrics(metrics)
    run = rank(dataset, depth_of(asked)) if asked else {}
    return score_run(run, dataset, asked).with_triplets(score_triplets(score, dataset, metrics))


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
        for name in in_order(documents)[:depth]:
            seen += 1
            unjudged += name not in grades
    return unjudged / seen if seen else 0.0
