"""Scores of a bi-encoder whose vectors are stored in fewer bytes: other precisions, fewer dimensions."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from core.data.retrieval_sets.judgments import RetrievalSet
from core.errors import BadSpec
from core.evaluation.systems import DenseEntrant
from core.ranking.metrics import depth_of, evaluate_run, mean
from core.ranking.quantization import Codec, search_stored
from core.ranking.rank_set import rank_set
from core.ranking.scores import ranking_metrics
from core.ranking.search import shard_vectors
from core.runtime.context import RunContext
from core.spec.evaluate import EvaluateSpec

_SAMPLE = 50
"""Shards whose vectors settle the ranges of int8: 102,400 texts."""


@dataclass(frozen=True)
class Variant:
    """``by_query``: metric -> query id -> value."""

    precision: str
    dimension: int
    bytes_per_vector: int
    rescored: bool
    by_query: dict[str, dict[str, float]]

    @property
    def means(self) -> dict[str, float]:
        """metric -> mean over queries"""
        return {metric: mean(values) for metric, values in self.by_query.items()}

    def as_dict(self) -> dict[str, Any]:
        return {
            "precision": self.precision,
            "dimension": self.dimension,
            "bytes_per_vector": self.bytes_per_vector,
            "rescored": self.rescored,
            "scores": self.means,
        }


def check_dimensions(entrant: DenseEntrant, spec: EvaluateSpec) -> None:
    """Raises `BadSpec` for more than the model has."""
    full = entrant.encoder.dimension
    if spec.dimensions and max(spec.dimensions) > full:
        raise BadSpec(f"dimensions {max(spec.dimensions)}: {entrant.facts.model} has {full} dimensions")


def variants(
    entrant: DenseEntrant, dataset: RetrievalSet, spec: EvaluateSpec, context: RunContext
) -> Iterator[Variant]:
    """Every precision with every number of dimensions, the whole float32 first. ``binary`` also as it is
    found by Hamming distance alone."""
    metrics = ranking_metrics(spec.metrics)
    depth = depth_of(metrics)
    shards, asked = entrant.shards(dataset), entrant.asked(dataset)
    context.phase("evaluating")
    full, cosine = asked.shape[1], entrant.facts.similarity != "dot"
    for dimension in sorted({full, *spec.dimensions}, reverse=True):
        for precision in dict.fromkeys(("float32", *spec.precisions)):
            codec = Codec.fitted(precision, dimension, cosine=cosine, sample=shard_vectors(shards[:_SAMPLE]))

            def stored(codec: Codec = codec) -> Iterator[np.ndarray]:
                for vectors in shard_vectors(shards):
                    yield codec.encode(vectors)

            again = {1, spec.rescore} if precision == "binary" else {1}
            for rescore in sorted(again, reverse=True):
                find = partial(
                    search_stored,
                    codec,
                    asked,
                    stored,
                    rescore=rescore,
                    device=entrant.encoder.device,
                    check_stop=context.check_stop,
                )
                run = rank_set(dataset, depth, find)
                yield Variant(
                    precision,
                    dimension,
                    codec.bytes_per_vector,
                    rescore > 1,
                    evaluate_run(dataset.qrels, run, metrics),
                )
