"""``kind: train``: the spec of a training job. Only the model and the data have no default."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from core.spec.job import JobSpec
from core.spec.mine import MineFirst
from core.spec.parts.evaluation import Evaluation, Rerank
from core.spec.parts.models import EmbeddingPruning, Family, Prompts
from core.spec.parts.options import Arithmetic, RejectShare, Seed
from core.spec.parts.reference_places import ReferencePlace, Role
from core.spec.parts.refs import ModelReference
from core.spec.parts.training import (
    Checkpointing,
    Curriculum,
    LateInteraction,
    Lengths,
    LoRA,
    Loss,
    Matryoshka,
    Merge,
    OneOrSeveral,
    PruneTokens,
    Remine,
    Resample,
    TrainingSource,
)

_USUAL_LOSS: dict[str, dict[str, Any]] = {
    "late_interaction": {"temperature": 1.0},
    "cross_encoder": {"name": "bce", "temperature": 1.0},
}

_ONLY: dict[str, dict[str, Any]] = {
    "dense": {"matryoshka": None, "remine": None, "quantization": None},
    "late_interaction": {
        "prune_embeddings": None,
        "evaluation.index": "auto",
        "late_interaction": LateInteraction(),
        "loss.legacy_sum_gradient": False,
    },
    "cross_encoder": {"evaluation.rerank": Rerank(), "loss.in_batch_negatives": "auto"},
}
"""Fields that belong to one family, with the value that says nothing."""


PREFETCH_BATCHES = 2


class TrainSpec(JobSpec):
    """Fine-tune a model on pairs of queries and documents.

    Outputs: ``model`` and ``report``; a dry run has only ``report``.
    """

    REFERENCES: ClassVar = (
        ReferencePlace("base_model", "model"),
        ReferencePlace("dataset.*.ref", "dataset"),
        ReferencePlace("loss.guide.model", "model"),
        *(ReferencePlace(f"mine.{path}", role) for path, role in MineFirst.MINING_REFERENCES),
        ReferencePlace("evaluation.rerank.retriever", "model"),
        ReferencePlace("evaluation.datasets.*.ref", "dataset"),
    )

    OUTPUTS: ClassVar = {"model": "model", "report": None}

    kind: Literal["train"]
    family: Family = "dense"
    base_model: ModelReference
    dataset: OneOrSeveral = Field(
        description="JSONL, CSV or Parquet files with query, positive[, negatives], or a BEIR folder. "
        "With several datasets, each batch comes from one of them."
    )
    sampling_temperature: float = Field(
        1.0,
        ge=1,
        le=100,
        description="Several datasets without weights: their shares are proportional to rows ** (1 / "
        "sampling_temperature).",
    )
    evaluation: Evaluation = Field(default_factory=Evaluation)
    loss: Loss = Field(default_factory=Loss)
    late_interaction: LateInteraction = Field(default_factory=LateInteraction)
    prune_tokens: PruneTokens | None = None
    prune_embeddings: EmbeddingPruning = None
    matryoshka: Matryoshka | None = None
    curriculum: Curriculum | None = None
    resample: Resample | None = None
    mine: MineFirst | None = None
    remine: Remine | None = None
    merge: Merge | None = Field(
        None,
        description="Publish the average of the trained weights and those of the base model. Evaluations "
        "during the training, early stopping and checkpoints are of the trained weights alone.",
    )
    epochs: float = Field(1, gt=0, le=10_000)
    max_steps: int | None = Field(
        None, ge=1, le=10**9, description="Stop after this many steps. Overrides epochs."
    )
    batch_size: int = Field(
        64, ge=2, le=65_536, description="Pairs in each step. The documents of the other pairs are negatives."
    )
    gradient_accumulation_steps: int = Field(1, ge=1, le=4096)
    micro_batch_tokens: Literal["auto"] | Annotated[int, Field(ge=64, le=10**9)] = Field(
        "auto", description="Number of tokens encoded at once if the loss is cached."
    )
    micro_batch_size: int | None = Field(
        None,
        ge=1,
        le=65_536,
        description="Number of texts (cross-encoders: pairs) encoded at once if the loss is cached, "
        "independent of their length. Replaces micro_batch_tokens.",
    )
    learning_rate: float = Field(5e-5, gt=0, le=10)
    warmup_ratio: float = Field(0.1, ge=0, le=1)
    scheduler: Literal["linear", "cosine", "constant_with_warmup"] = "linear"
    optimizer: Literal["adamw", "adamw_8bit", "paged_adamw_8bit", "adafactor", "sgd"] = "adamw"
    weight_decay: float = Field(0.01, ge=0, le=10)
    max_gradient_norm: float = Field(
        1.0, ge=0, le=1e9, description="Gradients are clipped to this norm. 0: no clipping."
    )
    lengths: Lengths = Field(default_factory=Lengths)
    precision: Arithmetic = Field(
        "auto", description="auto: bf16 if the GPU supports it, else fp32. Weights stay in fp32."
    )
    lora: LoRA | None = None
    quantization: Literal["int8", "int4"] | None = Field(
        None,
        description="Load the frozen base model of lora with fewer bits (QLoRA, arXiv 2305.14314; "
        "LLM.int8()).",
    )
    freeze_base: bool = Field(False, description="Train only the modules after the transformer.")
    train_last_n: int | None = Field(
        None, ge=1, le=1000, description="Train only this many of the last layers."
    )
    gradient_checkpointing: bool = Field(
        False, description="Recompute activations in the backward pass: less memory, about a third slower."
    )
    compile: bool = Field(False, description="torch.compile the model.")
    padding: Literal["auto", "dynamic", "fixed"] = Field(
        "auto",
        description="dynamic: pad to the longest text of a micro-batch. fixed: always pad to the longer "
        "of lengths. auto: fixed with compile, where every new shape costs time, else "
        "dynamic.",
    )
    sharding: Literal["none", "fsdp"] = Field(
        "none",
        description="fsdp: each GPU of resources.gpus holds one shard of weights, gradients and optimizer "
        "state (FSDP2, arXiv 2304.11277), for models that do not fit on one GPU.",
    )
    offload: bool = Field(
        False,
        description="With sharding: keep weights, gradients and optimizer state in main memory, and move "
        "each layer to the GPU when it is needed. Slow, but one GPU is enough.",
    )
    prompts: Prompts = Field(default_factory=Prompts)
    sample: int | None = Field(
        None, ge=1, le=10**9, description="Train on this many rows of each dataset, drawn with the seed."
    )
    dry_run: bool = Field(
        False, description="Read the data, determine lengths and memory, and report them, without training."
    )
    data_loader_workers: Literal["auto"] | Annotated[int, Field(ge=0, le=64)] = Field(
        "auto", description="Processes that prepare batches in advance. auto: 2 with a GPU, 0 on a CPU."
    )
    prefetch_batches: int = Field(
        PREFETCH_BATCHES,
        ge=1,
        le=64,
        description="Number of batches that each of data_loader_workers keeps ready.",
    )
    trackers: list[Literal["mlflow", "wandb"]] = Field(
        default_factory=list,
        max_length=2,
        description="Also report to these trackers. The worker needs their package and settings "
        "(MLFLOW_TRACKING_URI, WANDB_API_KEY).",
    )
    logging_steps: int = Field(10, ge=1, le=10**9, description="Steps between two points of the loss curve.")
    checkpoint: Checkpointing = Field(default_factory=Checkpointing)
    max_reject_share: RejectShare = 0.01
    seed: Seed = 42

    @classmethod
    def outputs_of(cls, spec: Mapping[str, Any]) -> Mapping[str, Role | None]:
        return {"report": None} if spec.get("dry_run") is True else cls.OUTPUTS

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_family(cls, data: Any) -> Any:
        """A loss that says nothing of it has the name and the temperature that its family is used with."""
        if not isinstance(data, dict) or not isinstance(data.get("family"), str):
            return data
        loss = data.get("loss", {})
        usual = _USUAL_LOSS.get(data["family"], {})
        return {**data, "loss": {**usual, **loss}} if usual and isinstance(loss, dict) else data

    @model_validator(mode="after")
    def _of_this_family(self) -> "TrainSpec":
        """What the family does not know is refused, and not ignored."""
        for family, names in _ONLY.items():
            for name, usual in names.items():
                value: Any = self
                for part in name.split("."):
                    value = getattr(value, part)
                if self.family != family and value != usual:
                    raise ValueError(f"{name} needs family: {family}, but family is {self.family}")
        if self.family != "cross_encoder" and self.loss.name in ("bce", "lambda"):
            raise ValueError(f"loss {self.loss.name} needs family: cross_encoder")
        if self.family == "late_interaction" and self.loss.learns_pair_scores:
            raise ValueError(
                f"loss {self.loss.name} cannot be used with family: late_interaction, whose MaxSim scores "
                "have no fixed scale: use dense or cross_encoder"
            )
        if self.loss.learns_pair_scores and self.evaluation.holdout is not None:
            raise ValueError(
                f"evaluation.holdout cannot be used with loss {self.loss.name}, because it treats every "
                "pair as relevant: use evaluation.datasets"
            )
        if self.family == "cross_encoder" and (self.loss.symmetric or self.loss.guide):
            raise ValueError(
                "loss.symmetric and loss.guide need the scores of all pairs of the batch, which a "
                "cross_encoder does not compute"
            )
        return self

    @field_validator("dataset")
    @classmethod
    def _datasets(cls, value: TrainingSource | list[TrainingSource]) -> TrainingSource | list[TrainingSource]:
        if isinstance(value, list):
            if len({source.weight is None for source in value}) > 1:
                raise ValueError("give either all datasets a weight, or none")
            names = [source.name for source in value if source.name]
            if len(set(names)) != len(names):
                raise ValueError("two datasets have the same name")
        return value

    @property
    def datasets(self) -> list[TrainingSource]:
        """One or several."""
        return self.dataset if isinstance(self.dataset, list) else [self.dataset]

    @property
    def pads_to_one_length(self) -> bool:
        """Whether all texts of a role are padded to the same length."""
        return self.padding == "fixed" or (self.padding == "auto" and self.compile)

    @model_validator(mode="after")
    def _one_way_to_train(self) -> "TrainSpec":
        chosen = [
            name
            for name in ("lora", "freeze_base", "train_last_n")
            if getattr(self, name) not in (None, False)
        ]
        if len(chosen) > 1:
            raise ValueError(f"{' and '.join(chosen)} exclude each other")
        if self.remine is not None:
            if self.curriculum is not None or self.resample is not None:
                raise ValueError("remine excludes curriculum and resample: it chooses the negatives itself")
            if self.loss.needs_scores:
                raise ValueError(
                    f"loss {self.loss.name} needs a teacher's scores, which negatives of remine do not have"
                )
            if self.remine.background and self.quantization:
                raise ValueError(
                    "remine.background and quantization exclude each other: the model would be copied to "
                    "the CPU"
                )
        if self.mine is not None:
            if self.loss.learns_pair_scores:
                raise ValueError(
                    f"mine cannot be used with loss {self.loss.name}, which learns pairs with scores"
                )
            if self.remine is not None and self.remine.at_start and self.remine.keep_own == "never":
                raise ValueError(
                    "remine.at_start with keep_own: never would replace all negatives that mine finds"
                )
            check = self.mine.filters.cross_encoder
            if self.loss.needs_scores and not (check and check.keep_scores):
                raise ValueError(
                    f"loss {self.loss.name} needs a teacher's scores for the negatives of mine: "
                    "set mine.filters.cross_encoder with keep_scores: true"
                )
        if self.micro_batch_size is not None and self.micro_batch_tokens != "auto":
            raise ValueError("micro_batch_size and micro_batch_tokens exclude each other")
        if self.quantization and self.lora is None:
            raise ValueError("quantization needs lora: quantized weights cannot be trained")
        return self

    @model_validator(mode="after")
    def _what_can_be_sharded(self) -> "TrainSpec":
        if self.sharding == "none":
            if self.offload:
                raise ValueError("offload needs sharding: fsdp")
            return self
        for name, value, instead in (
            ("merge", self.merge is not None, "merge: null"),
            ("quantization", self.quantization, "lora with an unquantized base"),
            ("compile", self.compile, "compile: false"),
            ("precision fp16", self.precision == "fp16", "precision bf16 or fp32"),
            ("device mps", self.device == "mps", "device auto"),
            (f"optimizer {self.optimizer}", self.optimizer not in ("adamw", "sgd"), "optimizer adamw or sgd"),
        ):
            if value:
                raise ValueError(f"sharding: fsdp cannot be used with {name}: use {instead}")
        return self


FREE_TO_CHANGE = frozenset(
    {
        "resources",
        "device",
        "sharding",
        "offload",
        "checkpoint",
        "logging_steps",
        "trackers",
        "data_loader_workers",
        "prefetch_batches",
    }
)
"""Fields that a training may change between two attempts: they change how and where it runs."""

IRRELEVANT = FREE_TO_CHANGE | {
    "kind",
    "name",
    "labels",
    "priority",
    "mine",  # by its own key
    "max_attempts",
    "timeout_seconds",
    "depends_on",
    "max_reject_share",
}
"""Fields that change nothing of what is trained. Datasets and models count by their content."""
