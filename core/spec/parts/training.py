"""Parts of a training spec: its datasets, loss, adapters, lengths, checkpoints and mining."""

from typing import Annotated, Literal

from pydantic import Field, Tag, model_validator

from core.spec.filters import KeepOwn, NearDuplicates, RankFilters
from core.spec.job import LONGEST_SECONDS, Difficulty
from core.spec.parts.base import BARE_REFERENCES, BY_SHAPE, Strict
from core.spec.parts.evaluation import DatasetSource
from core.spec.parts.options import Dimension, EncodingBatchSize, Sampling, Seed
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
    seed: Seed = 42


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

    dimensions: list[Dimension] = Field(
        min_length=1, max_length=32, description="Beside the full length, which always counts."
    )
    weights: list[Annotated[float, Field(gt=0, le=1e6)]] | None = Field(
        None, max_length=32, description="Of each dimension; the full length has 1. Default: 1 for all."
    )

    @model_validator(mode="after")
    def _consistent(self) -> "Matryoshka":
        if len(set(self.dimensions)) != len(self.dimensions):
            raise ValueError("duplicate dimension: each may be given once")
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
    near_duplicates: NearDuplicates = Field(default_factory=Near)
    keep_own: KeepOwn = "auto"
    sampling: Sampling = "top"
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
    batch_size: EncodingBatchSize = None
    background: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> "Remine":
        if self.prefer is not None and not self.across_datasets:
            raise ValueError("prefer other_dataset needs across_datasets: true")
        return self
