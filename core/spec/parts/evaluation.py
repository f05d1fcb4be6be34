"""How well models find what answers a query: asked for while training, and by evaluate jobs."""

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
        raise ValueError(f"there is no metric {text!r}; there are {known}, K from 1 to 9999")
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
    split: SplitName | None = Field(None, description="For a BEIR folder: which qrels file.")
    name: ReportName | None = Field(None, description="Its name in metrics and reports.")


class RankedSource(DatasetSource):
    """A dataset of which documents are ranked for queries."""

    identical_ids: Literal["auto", "exclude", "keep"] = Field(
        "auto",
        description="Whether a document is left out of the ranking of the query that has the same id, as "
        "BEIR does for ArguAna. auto: if, for at least half of such ids, the document has the query's text. "
        "A document that is judged relevant always stays.",
    )


class JudgedSource(RankedSource):
    """A retrieval set to evaluate on."""

    on_missing: Literal["fail", "drop"] = Field(
        "fail",
        description="Judgments of documents that are not in the corpus or of queries without a text, and "
        "documents of a run file that are not in the corpus. drop: they are left out and counted, and so is "
        "a query that loses all of its relevant documents.",
    )


class EarlyStopping(Strict):
    """End training when a metric no longer rises, and keep the best weights seen."""

    metric: Metric = "ndcg@10"
    dataset: str | None = Field(
        None, max_length=200, description="Only this evaluation set decides, by its name in reports."
    )
    patience: int = Field(3, ge=1, le=1000, description="Evaluations without a rise.")
    min_delta: float = Field(0.0, ge=0, le=1e9, description="What counts as a rise.")
    per_dataset: bool = Field(
        False,
        description="False: the mean over the datasets decides. True: stop when none of them still rises.",
    )
    stalled: Literal["keep", "stop", "down_weight"] = Field(
        "keep",
        description="per_dataset: what becomes of a training set whose own evaluation set (of its name, or "
        "its holdout) no longer rises: trained on as before, no more, or half as often.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "EarlyStopping":
        if self.stalled != "keep" and not self.per_dataset:
            raise ValueError("stalled needs per_dataset")
        if self.dataset is not None and self.per_dataset:
            raise ValueError("dataset names the one that decides: not with per_dataset")
        return self


class Rerank(Strict):
    """Whose candidates a cross-encoder brings into order."""

    retriever: ModelOrWords = Field("bm25", description="Or a model.")
    family: Literal["dense", "late_interaction"] = Field("dense", description="Of the retriever.")
    depth: int = Field(100, ge=1, le=10_000, description="Candidates of each query.")


LateInteractionIndex = Annotated[
    Literal["auto", "exact", "plaid"],
    Field(
        description="Of late interaction: whether every document is scored, or those that PLAID finds. auto: "
        "every one, up to half a billion pairs."
    ),
]


class Evaluation(Strict):
    """Retrieval over whole corpora, before, during and after training."""

    rerank: Rerank = Field(default_factory=Rerank, description="Of cross-encoders.")
    index: LateInteractionIndex = "auto"

    datasets: list[JudgedSource] = Field(default_factory=list, max_length=50)
    holdout: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="This share of each training set's queries is kept out of training and evaluated on.",
    )
    metrics: list[Metric] = Field(
        default_factory=lambda: ["ndcg@10", "mrr@10", "recall@10"], min_length=1, max_length=50
    )
    baseline: bool = Field(True, description="Evaluate the base model first, to compare with.")
    every_steps: int | None = Field(None, ge=1, le=10**9, description="Also evaluate while training.")
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
                raise ValueError("early_stopping needs every_steps")
            if stopping.metric not in self.metrics:
                self.metrics = [*self.metrics, stopping.metric]
        return self
