"""``kind: train``: what a training job asks for, with a default for all but its model and data."""

from typing import Annotated, Any, Literal

from pydantic import Field, Tag, field_validator, model_validator

from core.spec.filters import KeepOwn, RankFilters
from core.spec.job import LONGEST_SECONDS, Difficulty, JobSpec
from core.spec.mine import MineFirst
from core.spec.parts.base import BARE_REFERENCES, BY_SHAPE, Strict
from core.spec.parts.evaluation import DatasetSource, Evaluation, Rerank
from core.spec.parts.models import Family, Prompts, PruneEmbeddings
from core.spec.parts.refs import ModelReference
from core.spec.prepare import Near

Length = Literal["auto"] | Annotated[int, Field(ge=8, le=131_072)]


class TrainingSource(DatasetSource):
    """A dataset to train on, and its share of the batches where there are several."""

    weight: float | None = Field(
        None, gt=0, le=1e6, description="Relative share of the batches. Default: by the number of rows."
    )


OneOrSeveral = Annotated[
    Annotated[TrainingSource, Tag("<one>")]
    | Annotated[list[TrainingSource], Field(min_length=1, max_length=100), Tag("<several>")],
    BY_SHAPE,
    BARE_REFERENCES,
]


class Guide(Strict):
    """A model that says which negatives are none (GISTEmbed, Solatorio 2024, arXiv 2402.16829).

    Documents that it finds closer to the query than the query's own positive, less the margin, do not count
    as negatives.
    """

    model: ModelReference
    margin: float = Field(0.0, ge=0, le=1, description="Also masks what lies so little below the positive.")
    relative: bool = Field(False, description="The margin is a share of the positive's similarity.")


class PruneTokens(Strict):
    """Documents lose tokens before the model reads them, so that it computes less. Those that stay keep their
    order.

    ``length`` keeps a text's beginning; ``random`` draws; ``attention`` keeps what the base model attends to
    most; ``threshold`` keeps what is rare enough, so that of all texts together ``keep_ratio`` stays;
    ``combined`` goes by attention and rarity (inverse document frequency) together.
    """

    strategy: Literal["length", "random", "attention", "threshold", "combined"] = "length"
    keep_ratio: float = Field(0.6, gt=0, le=1)
    min_tokens: int = Field(16, ge=1, le=131_072, description="Shorter texts stay whole.")
    seed: int = Field(42, ge=0, lt=2**31)


class LateInteraction(Strict):
    """What a late-interaction model does with tokens. Default: what the base model does, or PyLate's."""

    embedding_size: int | None = Field(
        None, ge=8, le=4096, description="Of a new projection; PyLate's is 128."
    )
    query_expansion: bool | None = Field(None, description="Queries are filled up with masks, which count.")
    attend_to_expansion: bool | None = None
    skiplist: list[Annotated[str, Field(max_length=100)]] | None = Field(
        None, max_length=10_000, description="Words of documents that give no vector; PyLate's: punctuation."
    )


class Loss(Strict):
    """What is minimised.

    ``mnrl``: cross entropy of a query's similarities to all documents of the batch, also known as InfoNCE
    with in-batch negatives (van den Oord et al. 2018, arXiv 1807.03748). ``margin_mse`` (Hofstätter et al.
    2020, arXiv 2010.02666) and ``distillation`` (as in ColBERTv2, arXiv 2112.01488) learn a teacher's scores
    of each query's own documents. Of cross-encoders also ``bce``: binary cross entropy of each pair, and
    ``lambda``: pairs weighed by what their exchange would do to nDCG (LambdaLoss, Wang et al. 2018, "The
    LambdaLoss Framework for Ranking Metric Optimization"). ``cosent`` and ``regression`` learn the label or
    score beside each pair: its order among the batch's pairs (CoSENT, Su 2022), or its value (squared error;
    cosines from -1 to 1, of cross-encoders through a sigmoid from 0 to 1). ``cached`` computes the same loss
    in micro-batches (GradCache, Gao et al. 2021, arXiv 2101.06983).
    """

    name: Literal["mnrl", "margin_mse", "distillation", "bce", "lambda", "cosent", "regression"] = Field(
        "mnrl", description="Default of cross-encoders: bce."
    )
    temperature: float = Field(
        0.05,
        gt=0,
        le=100,
        description="Similarities are divided by it; scale is 1/temperature. Default of late interaction and "
        "cross-encoders: 1.",
    )
    symmetric: bool = Field(
        False, description="mnrl: also rank the batch's queries for each document, and average."
    )
    guide: Guide | None = Field(None, description="mnrl: masks false negatives.")
    teacher_temperature: float = Field(
        1.0, gt=0, le=100, description="distillation: the teacher's scores are divided by it."
    )
    in_batch_negatives: Literal["auto"] | Annotated[int, Field(ge=0, le=1000)] = Field(
        "auto",
        description="Of cross-encoders: with how many other queries' positives each query is scored, too. "
        "auto: 4 for mnrl, and where a row has no negatives.",
    )
    legacy_sum_gradient: bool = Field(
        False,
        description="Of late interaction: gradients as PyLate's cached loss (up to 1.6 at least) has them, "
        "batch_size times as large.",
    )
    cached: Literal["auto"] | bool = Field(
        "auto", description="auto: only when the batch does not fit in memory."
    )

    @model_validator(mode="after")
    def _consistent(self) -> "Loss":
        if self.name != "mnrl" and (self.symmetric or self.guide):
            raise ValueError(
                "symmetric and guide belong to mnrl: the other losses do not rank a batch's documents"
            )
        return self

    @property
    def needs_scores(self) -> bool:
        """Whether it learns scores: a teacher's, or those beside the pairs."""
        return self.name in ("margin_mse", "distillation") or self.learns_pair_scores

    @property
    def learns_pair_scores(self) -> bool:
        """Whether it learns the label or score beside each pair."""
        return self.name in ("cosent", "regression")


class Matryoshka(Strict):
    """The loss is also taken of the embeddings' first dimensions, so that they can be cut after training.

    Kusupati et al. 2022 (arXiv 2205.13147).
    """

    dimensions: list[Annotated[int, Field(ge=1, le=65_536)]] = Field(
        min_length=1, max_length=32, description="Beside the full length, which always counts."
    )
    weights: list[Annotated[float, Field(gt=0, le=1e6)]] | None = Field(
        None, max_length=32, description="Of each dimension; the full length has 1. Default: 1 for all."
    )

    @model_validator(mode="after")
    def _consistent(self) -> "Matryoshka":
        if len(set(self.dimensions)) != len(self.dimensions):
            raise ValueError("a dimension stands twice")
        if self.weights is not None and len(self.weights) != len(self.dimensions):
            raise ValueError("weights has another length than dimensions")
        return self


class LoRA(Strict):
    """Low-rank adapters on a frozen base (Hu et al. 2021, arXiv 2106.09685), merged into the saved model.

    They want a higher learning rate than full training: 1e-4 and more.
    """

    r: int = Field(8, ge=1, le=1024, description="Rank of the adapters.")
    alpha: float = Field(16, gt=0, le=4096, description="Adapters count alpha / r.")
    dropout: float = Field(0.05, ge=0, lt=1)
    target_modules: (
        Literal["auto"]
        | Annotated[
            list[Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$", max_length=200)]], Field(max_length=1000)
        ]
    ) = Field("auto", description="Names of linear layers; auto: the attention's projections.")
    modules_to_train: list[Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$", max_length=100)]] = Field(
        default_factory=list,
        max_length=100,
        description="Modules after the transformer that are trained in full beside the adapters: dense, "
        "projection (late interaction), or a module's number. New modules and a cross-encoder's head always "
        "are.",
    )


class Lengths(Strict):
    """Tokens after which texts are cut. ``auto``: a percentile of the data, within the model."""

    query: Length = "auto"
    document: Length = "auto"
    percentile: float = Field(0.95, gt=0, le=1)
    sample: int | None = Field(
        None,
        ge=1,
        le=10**9,
        description="auto: measure so many texts of each role, drawn with the seed. Default: all.",
    )
    cut: Literal["tokens", "sections"] = Field(
        "tokens",
        description="Where too long documents are cut. sections: after the last sentence or line that fits.",
    )
    saved: Literal["base", "trained"] = Field(
        "base",
        description="After how many tokens the saved model, which is evaluated, cuts texts. base: as the base"
        " model does, and no shorter than it was trained; trained: as in training.",
    )


class Checkpointing(Strict):
    """When the whole state is saved, so that a stopped or killed job goes on from there."""

    every_steps: int | None = Field(500, ge=1, le=10**9)
    every_seconds: float | None = Field(300, gt=0, le=LONGEST_SECONDS)
    keep: int = Field(2, ge=1, le=100)


class Curriculum(Strict):
    """Which negatives each epoch trains on, by their difficulty. Rows that have none of them do without.

    Epochs beyond the list are as its last one. After Bengio et al. 2009 (curriculum learning).
    """

    epochs: list[Annotated[list[Difficulty], Field(min_length=1, max_length=3)]] = Field(
        [["easy"], ["medium"], ["hard"]], min_length=1, max_length=1000
    )


class Resample(Strict):
    """Other negatives in every epoch: no row meets one again before it has met all of its own."""

    negatives: int = Field(1, ge=0, le=1000, description="Of each row, an epoch.")
    max_per_difficulty: int | None = Field(
        None, ge=1, le=1000, description="Of one difficulty, of each row an epoch."
    )


class Remine(Strict):
    """Negatives are mined again and again, with the weights as they are then (ANCE, Xiong et al. 2020, arXiv
    2007.00808), among the documents of the rows. ``keep_own`` says what becomes of the rows' own.

    In the background a copy of the weights mines on the CPU while training goes on; what it finds counts from
    the next time on.
    """

    every_epochs: float = Field(1.0, gt=0, le=10_000)
    at_start: bool = Field(True, description="Also before the first step. Else the rows' own begin.")
    num_negatives: int = Field(4, ge=1, le=100, description="Of each row.")
    filters: RankFilters = Field(default_factory=RankFilters)
    near_duplicates: Near | None = Field(
        default_factory=Near, description="What nearly repeats an answer is an answer."
    )
    keep_own: KeepOwn = Field(
        "auto",
        description="What becomes of negatives that the rows have. auto: a row that gets fewer than "
        "num_negatives keeps its own to fill up. always: all stay, beside the mined ones. never: mined ones "
        "take their place.",
    )
    sampling: Literal["top", "random"] = "top"
    index: Literal["exact", "faiss"] = Field(
        "exact",
        description="exact: every document is scored. faiss: inverted lists find most of the nearest.",
    )
    across_datasets: bool = Field(
        False, description="Of several datasets: documents of each may be negatives in all."
    )
    prefer: Literal["other_dataset"] | None = Field(
        None,
        description="Documents of another dataset than the row's come before the others, which fill up. "
        "Needs across_datasets.",
    )
    batch_size: int | None = Field(
        None,
        ge=1,
        le=65_536,
        description="Texts that are encoded at once. Default: as many as the token budget allows.",
    )
    background: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> "Remine":
        if self.prefer is not None and not self.across_datasets:
            raise ValueError("prefer other_dataset needs across_datasets: true")
        return self


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
    """Fine-tunes a model on pairs of queries and documents.

    Outputs: ``model`` and ``report``; of a dry run the report alone.
    """

    kind: Literal["train"]
    family: Family = "dense"
    base_model: ModelReference
    dataset: OneOrSeveral = Field(
        description="JSONL, CSV or Parquet of query, positive[, negatives], or a BEIR folder; or several: "
        "each batch is of one of them."
    )
    sampling_temperature: float = Field(
        1.0,
        ge=1,
        le=100,
        description="Several datasets without weights have shares of sizes ** (1 / temperature).",
    )
    evaluation: Evaluation = Field(default_factory=Evaluation)
    loss: Loss = Field(default_factory=Loss)
    late_interaction: LateInteraction = Field(default_factory=LateInteraction)
    prune_tokens: PruneTokens | None = None
    prune_embeddings: PruneEmbeddings | None = None
    matryoshka: Matryoshka | None = None
    curriculum: Curriculum | None = None
    resample: Resample | None = None
    mine: MineFirst | None = None
    remine: Remine | None = None
    epochs: float = Field(1, gt=0, le=10_000)
    max_steps: int | None = Field(
        None, ge=1, le=10**9, description="End after so many steps, whatever epochs says."
    )
    batch_size: int = Field(
        64, ge=2, le=65_536, description="Pairs a step; each other pair's document is a negative."
    )
    gradient_accumulation_steps: int = Field(1, ge=1, le=4096)
    micro_batch_tokens: Literal["auto"] | Annotated[int, Field(ge=64, le=10**9)] = Field(
        "auto", description="Tokens encoded at once when the loss is cached."
    )
    micro_batch_size: int | None = Field(
        None,
        ge=1,
        le=65_536,
        description="Texts (of cross-encoders pairs) encoded at once when the loss is cached, whatever "
        "their length, in place of micro_batch_tokens.",
    )
    learning_rate: float = Field(5e-5, gt=0, le=10)
    warmup_ratio: float = Field(0.1, ge=0, le=1)
    scheduler: Literal["linear", "cosine", "constant_with_warmup"] = "linear"
    optimizer: Literal["adamw", "adamw_8bit", "paged_adamw_8bit", "adafactor", "sgd"] = "adamw"
    weight_decay: float = Field(0.01, ge=0, le=10)
    max_gradient_norm: float = Field(
        1.0, ge=0, le=1e9, description="Gradients are clipped to it; 0 does not clip."
    )
    lengths: Lengths = Field(default_factory=Lengths)
    precision: Literal["auto", "fp32", "fp16", "bf16"] = Field(
        "auto", description="auto: bf16 where the GPU has it, else fp32. Weights stay in fp32."
    )
    lora: LoRA | None = None
    quantization: Literal["int8", "int4"] | None = Field(
        None, description="The frozen base of lora in fewer bits (QLoRA, arXiv 2305.14314; LLM.int8())."
    )
    freeze_base: bool = Field(False, description="Train only the modules after the transformer.")
    train_last_n: int | None = Field(None, ge=1, le=1000, description="Train only the last so many layers.")
    gradient_checkpointing: bool = Field(
        False, description="Recompute activations: less memory, about a third slower."
    )
    compile: bool = Field(False, description="torch.compile the model.")
    padding: Literal["auto", "dynamic", "fixed"] = Field(
        "auto",
        description="dynamic: to the longest text of a micro-batch. fixed: to the longer of lengths, always. "
        "auto: dynamic, and fixed with compile, for which every new shape costs time.",
    )
    sharding: Literal["none", "fsdp"] = Field(
        "none",
        description="fsdp: every GPU of resources.gpus holds a part of weights, gradients and optimizer "
        "state (FSDP2, arXiv 2304.11277), for models that do not fit on one.",
    )
    offload: bool = Field(
        False,
        description="With sharding: keep weights, gradients and optimizer state in main memory, and move "
        "each layer to the GPU when it is needed. Slow; one GPU is enough.",
    )
    prompts: Prompts = Field(default_factory=Prompts)
    sample: int | None = Field(
        None, ge=1, le=10**9, description="Train on so many rows of each dataset, drawn with the seed."
    )
    dry_run: bool = Field(
        False, description="Read the data, settle lengths and memory, report them, and train nothing."
    )
    data_loader_workers: Literal["auto"] | Annotated[int, Field(ge=0, le=64)] = Field(
        "auto", description="Processes that make batches ahead of the GPU. auto: 2 for a GPU, 0 for a CPU."
    )
    prefetch_batches: int = Field(
        PREFETCH_BATCHES, ge=1, le=64, description="Batches that each of data_loader_workers holds ready."
    )
    trackers: list[Literal["mlflow", "wandb"]] = Field(
        default_factory=list,
        max_length=2,
        description="Report there, too. Package and settings (MLFLOW_TRACKING_URI, WANDB_API_KEY) are yours.",
    )
    logging_steps: int = Field(10, ge=1, le=10**9, description="Steps between two points of the loss curve.")
    checkpoint: Checkpointing = Field(default_factory=Checkpointing)
    max_reject_share: float = Field(
        0.01, ge=0, le=1, description="Share of unreadable rows above which the job fails."
    )
    seed: int = Field(42, ge=0, lt=2**31)

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
                    raise ValueError(f"{name} is of {family} models alone, and family is {self.family}")
        if self.family != "cross_encoder" and self.loss.name in ("bce", "lambda"):
            raise ValueError(f"loss {self.loss.name} is of cross_encoder models alone")
        if self.family == "late_interaction" and self.loss.learns_pair_scores:
            raise ValueError(
                f"loss {self.loss.name} learns similarities on one scale, and MaxSim's sums over tokens have "
                "none: use it with dense or cross_encoder"
            )
        if self.loss.learns_pair_scores and self.evaluation.holdout is not None:
            raise ValueError(
                f"evaluation.holdout takes every pair for a relevant one; with loss {self.loss.name} name "
                "evaluation.datasets"
            )
        if self.family == "cross_encoder" and (self.loss.symmetric or self.loss.guide):
            raise ValueError("symmetric and guide need the scores of all pairs: not with cross_encoder")
        return self

    @field_validator("dataset")
    @classmethod
    def _datasets(cls, value: TrainingSource | list[TrainingSource]) -> TrainingSource | list[TrainingSource]:
        if isinstance(value, list):
            if len({source.weight is None for source in value}) > 1:
                raise ValueError("give every dataset a weight, or none")
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
                raise ValueError(
                    "remine chooses the negatives itself: no curriculum and no resample beside it"
                )
            if self.loss.needs_scores:
                raise ValueError(
                    f"loss {self.loss.name} needs a teacher's scores: what remine finds has none"
                )
            if self.remine.background and self.quantization:
                raise ValueError("remine.background copies the model to the CPU: not with quantization")
        if self.mine is not None:
            if self.loss.learns_pair_scores:
                raise ValueError(f"loss {self.loss.name} learns pairs with scores: mine finds it nothing")
            if self.remine is not None and self.remine.at_start and self.remine.keep_own == "never":
                raise ValueError("remine.at_start with keep_own: never replaces all that mine finds")
            check = self.mine.filters.cross_encoder
            if self.loss.needs_scores and not (check and check.keep_scores):
                raise ValueError(
                    f"loss {self.loss.name} needs a teacher's scores of what mine finds: "
                    "mine.filters.cross_encoder with keep_scores"
                )
        if self.micro_batch_size is not None and self.micro_batch_tokens != "auto":
            raise ValueError("micro_batch_size and micro_batch_tokens exclude each other")
        if self.quantization and self.lora is None:
            raise ValueError("quantization needs lora: quantized weights cannot be trained themselves")
        return self

    @model_validator(mode="after")
    def _what_can_be_sharded(self) -> "TrainSpec":
        if self.sharding == "none":
            if self.offload:
                raise ValueError("offload needs sharding: fsdp")
            return self
        for name, value, instead in (
            ("quantization", self.quantization, "lora with an unquantized base"),
            ("compile", self.compile, "compile: false"),
            ("precision fp16", self.precision == "fp16", "precision bf16 or fp32"),
            ("device mps", self.device == "mps", "device auto"),
            (f"optimizer {self.optimizer}", self.optimizer not in ("adamw", "sgd"), "optimizer adamw or sgd"),
        ):
            if value:
                raise ValueError(f"sharding: fsdp does not go with {name}: use {instead}")
        return self

    def references(self) -> dict[str, str]:
        """Every reference in the spec, by the path where it stands."""
        found = {"base_model": self.base_model}
        if isinstance(self.dataset, list):
            found |= {f"dataset.{index}.ref": source.ref for index, source in enumerate(self.dataset)}
        else:
            found["dataset.ref"] = self.dataset.ref
        if self.loss.guide is not None:
            found["loss.guide.model"] = self.loss.guide.model
        if self.mine is not None:
            found |= {f"mine.{path}": ref for path, ref in self.mine.mining_references().items()}
        if self.evaluation.rerank.retriever != "bm25":
            found["evaluation.rerank.retriever"] = self.evaluation.rerank.retriever
        for index, source in enumerate(self.evaluation.datasets):
            found[f"evaluation.datasets.{index}.ref"] = source.ref
        return found


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
