"""Evaluation options, shared by train and evaluate jobs."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from core.spec.parts.base import Strict, with_bare_references
from core.spec.parts.models import ModelOrWords
from core.spec.parts.options import ReportName, SplitName
from core.spec.parts.refs import DatasetReference
from core.spec.parts.rows import RowOptions

TRIPLET_METRICS = ("triplet_accuracy", "positive_score", "negative_score", "margin")

RANKING_METRICS = ("ndcg", "mrr", "recall", "precision", "map")

_AT_DEPTH = re.compile(rf"({'|'.join(RANKING_METRICS)})@[1-9][0-9]{{0,3}}")


def _metric(text: str) -> str:
    if text not in TRIPLET_METRICS and not _AT_DEPTH.fullmatch(text):
        known = ", ".join([*(f"{name}@K" for name in RANKING_METRICS), *TRIPLET_METRICS])
        raise ValueError(f"unknown metric {text!r}; known: {known}, with K from 1 to 9999")
    return text


Metric = Annotated[str, Field(max_length=40, examples=["ndcg@10"]), AfterValidator(_metric)]


ON_A_SCALE = ("positive_score", "negative_score", "margin")
"""Metrics in the unit of a model's own scores: between models of different units they say nothing."""


def rises(metric: str) -> bool:
    """Whether more of it is better. Negatives should score low."""
    return metric != "negative_score"


class DatasetSource(RowOptions):
    """A dataset, the split to read, and its name in reports."""

    ref: DatasetReference
    split: SplitName | None = Field(
        None, description="Which split to read. BEIR folders: the name of the qrels file."
    )
    name: ReportName | None = Field(None, description="Name of the dataset in metrics and reports.")


class RankedSource(DatasetSource):
    """A dataset whose documents are ranked for its queries."""

    identical_ids: Literal["auto", "exclude", "keep"] = Field(
        "auto",
        description="Whether a document is excluded from the ranking of the query that has the same id, "
        "as BEIR does for ArguAna. auto: exclude if, for at least half of the shared ids, "
        "document and query have the same text. A document that is judged relevant is never "
        "excluded.",
    )


class JudgedSource(RankedSource):
    """A retrieval set to evaluate on."""

    on_missing: Literal["fail", "drop"] = Field(
        "fail",
        description="What to do with judgments whose document is not in the corpus or whose query has no "
        "text, and with documents of a run file that are not in the corpus. fail: the job "
        "fails. drop: they are left out and counted; a query without a remaining relevant "
        "document is left out too.",
    )


class EarlyStopping(Strict):
    """Stop training when a metric no longer improves, and keep the best weights."""

    metric: Metric = "ndcg@10"
    dataset: str | None = Field(
        None, max_length=200, description="Name, as in reports, of the only evaluation set that decides."
    )
    patience: int = Field(
        3,
        ge=1,
        le=1000,
        description="Number of evaluations without an improvement after which training stops.",
    )
    min_delta: float = Field(0.0, ge=0, le=1e9, description="Smallest change that counts as an improvement.")
    per_dataset: bool = Field(
        False,
        description="false: the mean over the datasets decides. true: stop when no dataset improves any "
        "more.",
    )
    stalled: Literal["keep", "stop", "down_weight"] = Field(
        "keep",
        description="per_dataset only: what happens to a training dataset when its own evaluation set "
        "(same name, or its holdout) no longer improves. keep: train on it as before. stop: "
        "train on it no more. down_weight: train on it half as often.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "EarlyStopping":
        if self.stalled != "keep" and not self.per_dataset:
            raise ValueError("stalled needs per_dataset: true")
        if self.dataset is not None and self.per_dataset:
            raise ValueError("dataset and per_dataset: true exclude each other")
        return self


class Rerank(Strict):
    """Which candidates a cross-encoder reranks."""

    retriever: ModelOrWords = Field("bm25", description="Where the candidates come from: bm25, or a model.")
    family: Literal["dense", "late_interaction"] = Field(
        "dense", description="Family of the retriever model."
    )
    depth: int = Field(100, ge=1, le=10_000, description="Number of candidates for each query.")


LateInteractionIndex = Annotated[
    Literal["auto", "exact", "plaid"],
    Field(
        description="Late interaction only. exact: score every document. plaid: score the documents that "
        "a PLAID index finds. auto: exact up to half a billion pairs, else plaid."
    ),
]


class Evaluation(Strict):
    """Retrieval over whole corpora, before, during and after training."""

    rerank: Rerank = Field(
        default_factory=Rerank, description="Cross-encoders only: which candidates they rerank."
    )
    index: LateInteractionIndex = "auto"

    datasets: list[JudgedSource] = Field(default_factory=list, max_length=50)
    holdout: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Share of the queries of each training dataset that are not trained on but used to "
        "evaluate.",
    )
    metrics: list[Metric] = Field(
        default_factory=lambda: ["ndcg@10", "mrr@10", "recall@10"], min_length=1, max_length=50
    )
    baseline: bool = Field(True, description="Evaluate the base model first, for comparison.")
    every_steps: int | None = Field(
        None, ge=1, le=10**9, description="Also evaluate every so many steps during training."
    )
    early_stopping: EarlyStopping | None = None

    @field_validator("datasets", mode="before")
    @classmethod
    def _bare_references(cls, value: object) -> object:
        return with_bare_references(value) if isinstance(value, list) else value

    @model_validator(mode="after")
    def _consistent(self) -> "Evaluation":
        names = [source.name for source in self.datasets if source.name]
        if len(set(names)) != len(names):
            raise ValueError("two evaluation datasets have the same name")
        if stopping := self.early_stopping:
            if not self.datasets and self.holdout is None:
                raise ValueError("early_stopping needs at least one evaluation dataset, or a holdout")
            if self.every_steps is None:
                raise ValueError("early_stopping needs evaluation.every_steps")
            if stopping.metric not in self.metrics:
                self.metrics = [*self.metrics, stopping.metric]
        return self
