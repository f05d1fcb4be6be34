"""Parts of a training spec: its datasets, loss, adapters, lengths, checkpoints and mining."""

from typing import Annotated, Literal

from pydantic import Field, Tag, model_validator

from core.spec.job import LONGEST_SECONDS, Difficulty
from core.spec.parts.base import BARE_REFERENCES, BY_SHAPE, Strict
from core.spec.parts.evaluation import DatasetSource
from core.spec.parts.filters import KeepOwn, NearDuplicates, RankFilters
from core.spec.parts.options import Dimension, EncodingBatchSize, Sampling, Seed
from core.spec.parts.refs import ModelReference
from core.spec.prepare import Near

Length = Literal["auto"] | Annotated[int, Field(ge=8, le=131_072)]


class TrainingSource(DatasetSource):
    """A dataset to train on; with several datasets also its share of the batches."""

    weight: float | None = Field(
        None,
        gt=0,
        le=1e6,
        description="Relative share of the batches. Default: in proportion to the number of rows.",
    )


OneOrSeveral = Annotated[
    Annotated[TrainingSource, Tag("<one>")]
    | Annotated[list[TrainingSource], Field(min_length=1, max_length=100), Tag("<several>")],
    BY_SHAPE,
    BARE_REFERENCES,
]


class Guide(Strict):
    """A model that finds false negatives (GISTEmbed, Solatorio 2024, arXiv 2402.16829).

    A document whose similarity to the query, by this model, is above that of the query's own positive minus
    the margin does not count as a negative.
    """

    model: ModelReference
    margin: float = Field(
        0.0, ge=0, le=1, description="Also mask documents that score up to this much below the positive."
    )
    relative: bool = Field(False, description="true: margin is a share of the positive's similarity.")


class PruneTokens(Strict):
    """Drop tokens of documents before the model reads them, to save computation. The rest keeps its order.

    ``length`` keeps the beginning of a text; ``random`` keeps random tokens; ``attention`` keeps the tokens
    that the base model attends to most; ``threshold`` keeps the tokens above one rarity threshold, set so
    that ``keep_ratio`` of all tokens stays; ``combined`` ranks tokens by attention and rarity (inverse
    document frequency) together.
    """

    strategy: Literal["length", "random", "attention", "threshold", "combined"] = "length"
    keep_ratio: float = Field(0.6, gt=0, le=1)
    min_tokens: int = Field(
        16,
        ge=1,
        le=131_072,
        description="Keep at least this many tokens of each text; shorter texts are not pruned.",
    )
    seed: Seed = 42


class LateInteraction(Strict):
    """Token settings of a late-interaction model. Defaults: the base model's settings, or else PyLate's."""

    embedding_size: int | None = Field(
        None, ge=8, le=4096, description="Output size of a new projection; PyLate's default is 128."
    )
    query_expansion: bool | None = Field(
        None, description="Pad queries with mask tokens, whose vectors count in the score."
    )
    attend_to_expansion: bool | None = None
    skiplist: list[Annotated[str, Field(max_length=100)]] | None = Field(
        None,
        max_length=10_000,
        description="Document tokens that get no vector; PyLate's default: punctuation.",
    )


class Loss(Strict):
    """The loss function.

    ``mnrl``: cross entropy of a query's similarities to all documents of the batch, also known as InfoNCE
    with in-batch negatives (van den Oord et al. 2018, arXiv 1807.03748). ``margin_mse`` (Hofstätter et al.
    2020, arXiv 2010.02666) and ``distillation`` (as in ColBERTv2, arXiv 2112.01488) learn a teacher's scores
    of each query's own documents. Cross-encoders also have ``bce``: binary cross entropy of each pair, and
    ``lambda``: pairs weighted by the change of nDCG when they are swapped (LambdaLoss, Wang et al. 2018, "The
    LambdaLoss Framework for Ranking Metric Optimization"). ``cosent`` and ``regression`` learn the label or
    score of each pair: its order among the pairs of the batch (CoSENT, Su 2022), or its value (squared error
    of the cosine, from -1 to 1, or of a cross-encoder's sigmoid, from 0 to 1). ``cached`` computes the same
    loss in micro-batches (GradCache, Gao et al. 2021, arXiv 2101.06983).
    """

    name: Literal["mnrl", "margin_mse", "distillation", "bce", "lambda", "cosent", "regression"] = Field(
        "mnrl", description="Default for cross_encoder: bce."
    )
    temperature: float = Field(
        0.05,
        gt=0,
        le=100,
        description="Similarities are divided by this number (scale = 1/temperature). Default for "
        "late_interaction and cross_encoder: 1.",
    )
    symmetric: bool = Field(
        False,
        description="mnrl only: also rank the batch's queries for each document, and average both losses.",
    )
    guide: Guide | None = Field(None, description="mnrl only: a second model that masks false negatives.")
    teacher_temperature: float = Field(
        1.0, gt=0, le=100, description="distillation only: the teacher's scores are divided by this number."
    )
    in_batch_negatives: Literal["auto"] | Annotated[int, Field(ge=0, le=1000)] = Field(
        "auto",
        description="Cross-encoders only: number of other queries' positives that each query is also "
        "scored with. auto: 4 for mnrl, and for rows without negatives.",
    )
    legacy_sum_gradient: bool = Field(
        False,
        description="Late interaction only: scale gradients as PyLate's cached loss does (at least up to "
        "version 1.6), batch_size times as large.",
    )
    cached: Literal["auto"] | bool = Field(
        "auto",
        description="Compute the loss with gradient caching, in micro-batches. auto: when the batch would "
        "take more than 80 % of a GPU's free memory, or a quarter of the free main memory.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "Loss":
        if self.name != "mnrl" and (self.symmetric or self.guide):
            raise ValueError(
                "loss.symmetric and loss.guide need loss.name: mnrl; other losses do not rank the "
                "batch's documents"
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


class Merge(Strict):
    """Average the trained weights with those of the base model (LM-Cocktail, arXiv 2311.13534)."""

    base_weight: float = Field(
        0.5, gt=0, lt=1, description="Weight of the base model; that of the trained one is 1 - base_weight."
    )


class Matryoshka(Strict):
    """Also train the leading dimensions of the embeddings, so that embeddings can be cut afterwards.

    Kusupati et al. 2022 (arXiv 2205.13147).
    """

    dimensions: list[Dimension] = Field(
        min_length=1,
        max_length=32,
        description="Sizes in addition to the full size, which is always trained.",
    )
    weights: list[Annotated[float, Field(gt=0, le=1e6)]] | None = Field(
        None,
        max_length=32,
        description="Weight of the loss at each of dimensions; the full size has weight 1. Default: 1 for "
        "all.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "Matryoshka":
        if len(set(self.dimensions)) != len(self.dimensions):
            raise ValueError("dimensions: a value is given twice")
        if self.weights is not None and len(self.weights) != len(self.dimensions):
            raise ValueError("weights and dimensions must have the same number of items")
        return self


class LoRA(Strict):
    """Low-rank adapters on a frozen base (Hu et al. 2021, arXiv 2106.09685), merged into the saved model.

    They need a higher learning rate than full training: 1e-4 or more.
    """

    r: int = Field(8, ge=1, le=1024, description="Rank of the adapters.")
    alpha: float = Field(16, gt=0, le=4096, description="The adapters' output is scaled by alpha / r.")
    dropout: float = Field(0.05, ge=0, lt=1)
    target_modules: (
        Literal["auto"]
        | Annotated[
            list[Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$", max_length=200)]], Field(max_length=1000)
        ]
    ) = Field(
        "auto",
        description="Names of the linear layers that get adapters. auto: the projections of the attention.",
    )
    modules_to_train: list[Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$", max_length=100)]] = Field(
        default_factory=list,
        max_length=100,
        description="Modules after the transformer that are fully trained in addition to the adapters: "
        "dense, projection (late interaction), or a module's number. New modules and the head "
        "of a cross-encoder are always trained.",
    )


class Lengths(Strict):
    """Length limits in tokens; longer texts are cut.

    ``auto``: a percentile of the data, up to the model's limit.
    """

    query: Length = "auto"
    document: Length = "auto"
    percentile: float = Field(0.95, gt=0, le=1)
    sample: int | None = Field(
        None,
        ge=1,
        le=10**9,
        description="auto only: number of texts of each role to measure, drawn with the seed. Default: all.",
    )
    cut: Literal["tokens", "sections"] = Field(
        "tokens",
        description="Where documents that are too long are cut. tokens: at the limit. sections: after the "
        "last sentence or line that fits.",
    )
    saved: Literal["base", "trained"] = Field(
        "base",
        description="Length limit of the saved model, which is also the evaluated one. base: the base "
        "model's limit, but at least the training's. trained: the training's limit.",
    )


class Checkpointing(Strict):
    """When the whole state is saved, so that a stopped or killed job can resume."""

    every_steps: int | None = Field(500, ge=1, le=10**9)
    every_seconds: float | None = Field(300, gt=0, le=LONGEST_SECONDS)
    keep: int = Field(2, ge=1, le=100)


class Curriculum(Strict):
    """Which negatives each epoch trains on, by difficulty. Rows without such negatives train without.

    Epochs after the end of the list use its last item. Curriculum learning: Bengio et al. 2009.
    """

    epochs: list[Annotated[list[Difficulty], Field(min_length=1, max_length=3)]] = Field(
        [["easy"], ["medium"], ["hard"]], min_length=1, max_length=1000
    )


class Resample(Strict):
    """Draw new negatives in every epoch. A row repeats a negative only after it has used all of its own."""

    negatives: int = Field(1, ge=0, le=1000, description="Number of negatives for each row and epoch.")
    max_per_difficulty: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="Largest number of negatives of one difficulty for each row and epoch.",
    )


class Remine(Strict):
    """Mine negatives repeatedly during training, with the current weights (ANCE, Xiong et al. 2020, arXiv
    2007.00808), among the documents of the rows. ``keep_own`` decides what happens to the rows' own
    negatives.

    With ``background`` a copy of the weights mines on the CPU while training continues; its result is used
    from the next mining time on.
    """

    every_epochs: float = Field(1.0, gt=0, le=10_000)
    at_start: bool = Field(
        True,
        description="Also mine before the first step. false: training starts with the rows' own negatives.",
    )
    num_negatives: int = Field(4, ge=1, le=100, description="Number of negatives to mine for each row.")
    filters: RankFilters = Field(default_factory=RankFilters)
    near_duplicates: NearDuplicates = Field(default_factory=Near)
    keep_own: KeepOwn = "auto"
    sampling: Sampling = "top"
    index: Literal["exact", "faiss"] = Field(
        "exact",
        description="exact: score every document. faiss: an approximate index finds most of the nearest "
        "documents, faster.",
    )
    across_datasets: bool = Field(
        False,
        description="With several datasets: a document of any dataset may be a negative in all of them.",
    )
    prefer: Literal["other_dataset"] | None = Field(
        None,
        description="other_dataset: choose documents of other datasets first, then the row's own dataset. "
        "Needs across_datasets: true.",
    )
    batch_size: EncodingBatchSize = None
    background: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> "Remine":
        if self.prefer is not None and not self.across_datasets:
            raise ValueError("prefer: other_dataset needs across_datasets: true")
        return self
