"""``kind: evaluate``: compare models on retrieval sets, with significance tests."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from core.spec.embed import Compute, Precision
from core.spec.job import JobSpec
from core.spec.parts.base import BARE_REFERENCES, Strict
from core.spec.parts.evaluation import JudgedSource, LateInteractionIndex, Metric, Rerank
from core.spec.parts.models import EmbeddingPruning, ModelOrWords, Prompts
from core.spec.parts.options import Dimension, MaxLength, Promote, RejectShare, ReportName, Seed
from core.spec.parts.reference_places import ReferencePlace, Role
from core.spec.parts.refs import DatasetReference


class EvaluatedModel(Strict):
    """A model, or bm25, and its input settings."""

    ref: ModelOrWords
    name: ReportName | None = Field(None, description="Name of the model in reports and run files.")
    family: Literal["auto", "dense", "late_interaction", "cross_encoder"] = Field(
        "auto", description="auto: detected from the model's files."
    )
    prompts: Prompts = Field(default_factory=Prompts)
    max_length: MaxLength | None = Field(
        None,
        description="Longest input in tokens: of a text (dense), of a document (late interaction) or of a "
        "pair (cross-encoder). Default: the model's own limit.",
    )
    prune_embeddings: EmbeddingPruning = None


class EvaluatedSource(JudgedSource):
    """A retrieval set, and optionally existing rankings of it."""

    run: DatasetReference | None = Field(
        None,
        description="A TREC run file. Cross-encoders rerank its candidates instead of those of "
        "rerank.retriever.",
    )


class Significance(Strict):
    """How to test a difference: a paired randomisation test, and a bootstrap over queries (Smucker et al.
    2007, "A comparison of statistical significance tests for information retrieval")."""

    permutations: int = Field(10_000, ge=100, le=1_000_000)
    level: float = Field(
        0.05,
        gt=0,
        lt=1,
        description="A difference is significant if its p-value, after Holm's correction for multiple "
        "comparisons, is below this level.",
    )


class EvaluateSpec(JobSpec):
    """Rank whole corpora with several models and compare the models.

    Outputs: ``report``, and ``run`` with a TREC run of each model on each dataset. With ``publish_best`` also
    ``model``.
    """

    REFERENCES: ClassVar = (
        ReferencePlace("models.*.ref", "model"),
        ReferencePlace("datasets.*.ref", "dataset"),
        ReferencePlace("datasets.*.run", "dataset"),
        ReferencePlace("rerank.retriever", "model"),
    )

    OUTPUTS: ClassVar = {"run": "dataset", "report": None}

    kind: Literal["evaluate"]
    models: Annotated[list[EvaluatedModel], Field(min_length=1, max_length=20), BARE_REFERENCES] = Field(
        description="Models to compare. With several, the last one is the baseline."
    )
    datasets: Annotated[list[EvaluatedSource], Field(min_length=1, max_length=100), BARE_REFERENCES] = Field(
        description="BEIR folders, BRIGHT, prepared datasets or rows. With access to a model hub also "
        "beir:NAME, nanobeir:NAME, bright:DOMAIN and mteb:NAME."
    )
    metrics: list[Metric] = Field(
        default_factory=lambda: ["ndcg@10", "mrr@10", "recall@100"],
        min_length=1,
        max_length=50,
        description="The verdict uses the first metric that all datasets have.",
    )
    rerank: Rerank = Field(
        default_factory=Rerank, description="Cross-encoders only: which candidates they rerank."
    )
    index: LateInteractionIndex = "auto"
    compute: Compute = "auto"
    precisions: list[Precision] = Field(
        default_factory=list,
        max_length=4,
        description="Dense models only: also measure with vectors stored in these formats.",
    )
    dimensions: list[Dimension] = Field(
        default_factory=list,
        max_length=32,
        description="Dense models only: also measure with only this many leading dimensions (Matryoshka).",
    )
    rescore: int = Field(
        4,
        ge=1,
        le=1000,
        description="binary only: the Hamming search returns this many times more documents than needed, "
        "and the full query vector scores them again. 1: no second scoring.",
    )
    significance: Significance = Field(default_factory=Significance)
    publish_best: bool = Field(
        False,
        description="Also publish the model to use as the output model: the one with the largest significant "
        "gain over the baseline by the first metric, else the baseline.",
    )
    promote: Promote | None = Field(
        None,
        description="With publish_best: the output model becomes a version of the job's name, and "
        "NAME@current, only if it is not the baseline. if_better: it must be significantly better than the "
        "baseline. if_not_worse: the first model also wins where it is not significantly worse.",
    )
    latency_queries: int = Field(
        0,
        ge=0,
        le=10_000,
        description="Number of queries that are also run one at a time, to measure latency.",
    )
    examples: int = Field(
        3,
        ge=0,
        le=100,
        description="Number of example queries in the report where a model wins, and where it loses.",
    )
    max_reject_share: RejectShare = 0.0
    seed: Seed = 42

    @classmethod
    def outputs_of(cls, spec: Mapping[str, Any]) -> Mapping[str, Role | None]:
        return {**cls.OUTPUTS, "model": "model"} if spec.get("publish_best") is True else cls.OUTPUTS

    @model_validator(mode="after")
    def _consistent(self) -> "EvaluateSpec":
        if self.publish_best and (len(self.models) < 2 or any(model.ref == "bm25" for model in self.models)):
            raise ValueError("publish_best needs at least two models, and bm25 is none that can be published")
        if self.promote is not None and not self.publish_best:
            raise ValueError("promote needs publish_best: true")
        for what, items in (("models", self.models), ("datasets", self.datasets)):
            names = [item.name for item in items if item.name]
            if len(set(names)) != len(names):
                raise ValueError(f"two {what} have the same name")
        for what, values in (("precisions", self.precisions), ("dimensions", self.dimensions)):
            if len(set(values)) != len(values):
                raise ValueError(f"{what}: a value is given twice")
        if not any("@" in metric for metric in self.metrics) and (self.precisions or self.dimensions):
            raise ValueError(
                "precisions and dimensions need at least one ranking metric in metrics, such as ndcg@10"
            )
        return self
