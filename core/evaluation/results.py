"""Data classes of what an evaluate job has measured."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from core.evaluation.page import Percentiles
from core.evaluation.precisions import Variant
from core.evaluation.sets import NamedSet
from core.evaluation.systems import Ranking, StoredVectors
from core.ranking.scores import Scores
from core.retrieval.system_facts import SystemFacts


@dataclass
class Result:
    """What one model has done on one dataset. ``positives`` and ``negatives`` are scores of judged pairs,
    where triplets were asked for."""

    scores: Scores
    ranking: Ranking
    unjudged: float
    positives: np.ndarray
    negatives: np.ndarray
    variants: list[Variant] = field(default_factory=list)
    latency: dict[str, Percentiles] = field(default_factory=dict)

    def as_json(self) -> str:
        told = asdict(self)
        return json.dumps(told | {name: getattr(self, name).tolist() for name in ("positives", "negatives")})

    @classmethod
    def from_json(cls, text: str) -> "Result":
        told = json.loads(text)
        ranking = told["ranking"]
        stored = ranking["stored"]
        return cls(
            Scores(**told["scores"]),
            Ranking(**{**ranking, "stored": StoredVectors(**stored) if stored else None}),
            told["unjudged"],
            np.array(told["positives"], np.float32),
            np.array(told["negatives"], np.float32),
            [Variant(**variant) for variant in told["variants"]],
            {part: Percentiles(**found) for part, found in told["latency"].items()},
        )


@dataclass
class Evaluated:
    """Everything that was found. Models stand in the order of the spec: the last one is the baseline."""

    sets: list[NamedSet]
    models: dict[str, SystemFacts] = field(default_factory=dict)  # by name
    results: dict[tuple[str, str], Result] = field(default_factory=dict)  # by model and dataset
    candidates: dict[str, Scores] = field(default_factory=dict)  # by dataset, where something was reranked

    def leading(self, metrics: Sequence[str]) -> str:
        """The first of the metrics that every dataset has: of triplets not all have."""
        every = [result.scores.by_query for result in self.results.values()]
        return next((metric for metric in metrics if all(metric in has for has in every)), metrics[0])
