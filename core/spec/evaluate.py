"""``kind: evaluate``: is the new model better, where, and is it luck?"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from core.spec.embed import Compute, Precision
from core.spec.job import JobSpec
from core.spec.parts.base import BARE_REFERENCES, Strict
from core.spec.parts.evaluation import JudgedSource, LateInteractionIndex, Metric, Rerank
from core.spec.parts.models import EmbeddingPruning, ModelOrWords, Prompts
from core.spec.parts.options import Dimension, MaxLength, RejectShare, ReportName, Seed
from core.spec.parts.reference_places import ReferencePlace
from core.spec.parts.refs import DatasetReference


class EvaluatedModel(Strict):
    """A model, or bm25, and how it is to read texts."""

    ref: ModelOrWords
    name: ReportName | None = Field(None, description="In reports and runs.")
    family: Literal["auto", "dense", "late_interaction", "cross_encoder"] = Field(
        "auto", description="auto: as the model's files say."
    )
    prompts: Prompts = Field(default_factory=Prompts)
    max_length: MaxLength | None = Field(
        None,
        description="Tokens of a text, of late_interaction of a document, of a cross-encoder of a pair; "
        "default: what the model is set to.",
    )
    prune_embeddings: EmbeddingPruning = None


class EvaluatedSource(JudgedSource):
    """A retrieval set, and rankings of it that somebody else has made."""

    run: DatasetReference | None = Field(
        None,
        description="A TREC run file: cross-encoders bring its candidates into order instead of those of "
        "rerank.retriever.",
    )


class Significance(Strict):
    """How a difference is told from luck: a paired randomisation test, and a bootstrap over queries
    (Smucker et al. 2007, "A comparison of statistical significance tests for information retrieval")."""

    permutations: int = Field(10_000, ge=100, le=1_000_000)
    level: float = Field(
        0.05, gt=0, lt=1, description="Below it a difference counts, corrected for many comparisons (Holm)."
    )


class EvaluateSpec(JobSpec):
    """Ranks whole corpora with several models and compares them. Outputs: ``report``, and ``run`` with a TREC
    run of each model on each dataset."""

    REFERENCES: ClassVar = (
        ReferencePlace("models.*.ref", "model"),
        ReferencePlace("datasets.*.ref", "dataset"),
        ReferencePlace("datasets.*.run", "dataset"),
        ReferencePlace("rerank.retriever", "model"),
    )

    kind: Literal["evaluate"]
    models: Annotated[list[EvaluatedModel], Field(min_length=1, max_length=20), BARE_REFERENCES] = Field(
        description="Of several, the last one is the baseline that the others are compared with."
    )
    datasets: Annotated[list[EvaluatedSource], Field(min_length=1, max_length=100), BARE_REFERENCES] = Field(
        description="BEIR folders, BRIGHT, prepared sets, rows; beir:NAME, nanobeir:NAME, bright:DOMAIN and "
        "mteb:NAME where a hub is."
    )
    metrics: list[Metric] = Field(
        default_factory=lambda: ["ndcg@10", "mrr@10", "recall@100"],
        min_length=1,
        max_length=50,
        description="The verdict is by the first one that every dataset has.",
    )
    rerank: Rerank = Field(default_factory=Rerank, description="Of cross-encoders.")
    index: LateInteractionIndex = "auto"
    compute: Compute = "auto"
    precisions: list[Precision] = Field(
        default_factory=list,
        max_length=4,
        description="Of bi-encoders: also measured with vectors that are stored in these.",
    )
    dimensions: list[Dimension] = Field(
        default_factory=list,
        max_length=32,
        description="Of bi-encoders: also measured with the first so many dimensions (Matryoshka).",
    )
    rescore: int = Field(
        4,
        ge=1,
        le=1000,
        description="binary: so many times as many documents are found by Hamming distance and scored again "
        "with the whole query. 1: none.",
    )
    significance: Significance = Field(default_factory=Significance)
    latency_queries: int = Field(
        0, ge=0, le=10_000, description="So many queries are also asked one by one, with a clock."
    )
    examples: int = Field(3, ge=0, le=100, description="Of queries won and lost, in the report.")
    max_reject_share: RejectShare = 0.0
    seed: Seed = 42

    @model_validator(mode="after")
    def _consistent(self) -> "EvaluateSpec":
        for what, items in (("models", self.models), ("datasets", self.datasets)):
            names = [item.name for item in items if item.name]
            if len(set(names)) != len(names):
                raise ValueError(f"two {what} have the same name")
        for what, values in (("precisions", self.precisions), ("dimensions", self.dimensions)):
            if len(set(values)) != len(values):
                raise ValueError(f"{what}: one stands twice")
        if not any("@" in metric for metric in self.metrics) and (self.precisions or self.dimensions):
            raise ValueError("precisions and dimensions are measured by rankings: metrics has none")
        return self
