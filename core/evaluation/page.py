"""``report.json`` of an evaluation: everything that was measured, for programs, and what the report shows."""

from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from core.evaluation.precisions import Variant
from core.evaluation.systems import StoredVectors
from core.ranking.comparison import Compared
from core.retrieval.system_facts import SystemFacts

T = TypeVar("T")

ByModel = dict[str, dict[str, T]]
"""model -> dataset -> what was measured of them"""

Means = dict[str, float]
"""metric -> mean over queries"""


@dataclass(frozen=True, kw_only=True)
class DatasetSummary:
    """What was evaluated on. ``relevant`` and ``judged`` count pairs of a query and a document."""

    ref: str
    queries: int
    documents: int
    relevant: int
    judged: int
    grades: list[int]
    excluded: int  # documents that rankings of a query leave out
    unreadable: int
    identical_ids: dict[str, Any] | None  # see `core.data.retrieval_sets.judgments.Coincidence`
    remarks: dict[str, Any]  # see `core.data.rows.remarks.Remarks.as_dict`


@dataclass(frozen=True)
class CategoryScores:
    """Of the queries of one category."""

    queries: int
    means: Means

    def as_dict(self) -> dict[str, Any]:
        return {"queries": self.queries, **self.means}


@dataclass(frozen=True)
class Percentiles:
    """Milliseconds."""

    median: float
    p95: float


@dataclass(frozen=True, kw_only=True)
class RelevantDocument:
    id: str
    grade: int
    text: str


@dataclass(frozen=True, kw_only=True)
class FirstDocument:
    """The best of a ranking. ``grade`` is None where nobody has judged it."""

    id: str
    text: str
    grade: int | None
    score: float


@dataclass(frozen=True, kw_only=True)
class Example:
    """A query that a model has gained or lost much on, against the baseline. ``values`` and ``first`` are by
    model; ``first`` is None where nothing was found."""

    model: str
    query_id: str
    query: str
    metric: str
    values: dict[str, float]
    relevant: list[RelevantDocument]
    first: dict[str, FirstDocument | None]

    def as_dict(self) -> dict[str, Any]:
        found = asdict(self)
        return {
            "model": self.model,
            "query_id": self.query_id,
            "query": self.query,
            self.metric: self.values,
            "relevant": found["relevant"],
            "first": found["first"],
        }


@dataclass(frozen=True, kw_only=True)
class EvaluationPage:
    leading: str  # the metric that verdicts go by
    models: dict[str, SystemFacts]
    baseline: str | None
    datasets: dict[str, DatasetSummary]
    scores: ByModel[Means]
    mean: dict[str, Means]  # of each model over all datasets
    categories: ByModel[dict[str, CategoryScores]]
    candidates: dict[str, Means]  # of each dataset, as rerankers were given them
    unjudged_at_10: ByModel[float]  # share of the ten best that nobody has judged
    comparisons: list[Compared]
    seconds: ByModel[float]
    stored: ByModel[StoredVectors | None]
    precisions: ByModel[list[Variant]]
    latency_ms: ByModel[dict[str, Percentiles]]  # of a query, by what was done
    examples: dict[str, list[Example]]  # by dataset
    inputs: dict[str, Any]  # see `core.jobs.protocol.dump_inputs`
    spec: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "leading": self.leading,
            "models": {
                name: {**facts.as_dict(), "reference": facts.model} for name, facts in self.models.items()
            },
            "baseline": self.baseline,
            "datasets": {name: asdict(summary) for name, summary in self.datasets.items()},
            "scores": self.scores,
            "mean": self.mean,
            "categories": {
                model: {
                    dataset: {category: found.as_dict() for category, found in of_dataset.items()}
                    for dataset, of_dataset in of_model.items()
                }
                for model, of_model in self.categories.items()
            },
            "candidates": self.candidates,
            "unjudged@10": self.unjudged_at_10,
            "comparisons": [item.as_dict() for item in self.comparisons],
            "seconds": self.seconds,
            "stored": {
                model: {name: found.as_dict() if found else {} for name, found in of_model.items()}
                for model, of_model in self.stored.items()
            },
            "precisions": {
                model: {name: [variant.as_dict() for variant in found] for name, found in of_model.items()}
                for model, of_model in self.precisions.items()
            },
            "latency_ms": {
                model: {
                    name: {part: asdict(found) for part, found in parts.items()}
                    for name, parts in of_model.items()
                }
                for model, of_model in self.latency_ms.items()
            },
            "examples": {name: [item.as_dict() for item in found] for name, found in self.examples.items()},
            "inputs": self.inputs,
            "spec": self.spec,
        }
