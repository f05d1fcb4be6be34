"""Which documents may be negatives of a query: options of mine jobs and of trainings with remine."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from core.spec.parts.base import Strict
from core.spec.parts.options import MaxLength
from core.spec.parts.refs import ModelReference
from core.spec.prepare import Near


class Bar(Strict):
    """Limits of a negative's score, absolute or relative to the query's positive.

    With several positives the lowest one counts. If several limits are given, the lowest applies. Margins
    lower the limit also where scores are negative.
    """

    max_score: float | None = Field(None, ge=-1e9, le=1e9)
    absolute_margin: float | None = Field(
        None, ge=0, le=1e9, description="A negative must score at least this much below the positive."
    )
    relative_margin: float | None = Field(
        None,
        ge=0,
        le=10,
        description="A negative must score at least this share of the positive's score below it.",
    )
    positive_aware: float | None = Field(
        0.95,
        gt=0,
        le=1,
        description="A negative may have at most this share of the positive's score (arXiv 2407.15831).",
    )


class Fallback(Strict):
    """Choose negatives by rank where the limits by score remove most candidates.

    This happens when all scores of a model are nearly equal. A query with too few negatives takes candidates
    from rank ``range_min`` on that score below its positive. If all candidates score above the positive, it
    takes them from the deeper half of the ranks.
    """

    range_min: int = Field(
        10,
        ge=0,
        le=1_000_000,
        description="Number of nearest candidates that are never chosen by rank; at most a tenth of the "
        "corpus.",
    )


class RankFilters(Bar):
    """Filters by rank and by score (cosine, dot product, MaxSim or BM25).

    Ranks count from 0 among the documents that are not answers.
    """

    range_min: int = Field(0, ge=0, le=1_000_000, description="Exclude this many of the nearest candidates.")
    range_max: int = Field(100, ge=1, le=1_000_000, description="Exclude candidates from this rank on.")
    min_score: float | None = Field(None, ge=-1e9, le=1e9)
    max_filtered_share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="If one filter removes more than this share of all candidates, the job warns, with "
        "the scores and the setting to change. If the limits by score do, fallback applies.",
    )
    fallback: Fallback | None = Field(
        default_factory=Fallback,
        description="How queries get negatives if the limits by score remove more than max_filtered_share "
        "of the candidates. null: such queries get none.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "RankFilters":
        if self.range_min >= self.range_max:
            raise ValueError("range_min must be below range_max")
        if self.min_score is not None and self.max_score is not None and self.min_score > self.max_score:
            raise ValueError("min_score must not be above max_score")
        return self


NearDuplicates = Annotated[
    Near | None,
    Field(description="Exclude documents that are nearly the same as an answer. null: do not check."),
]

KeepOwn = Annotated[
    Literal["auto", "always", "never"],
    Field(
        description="What happens to the rows' own negatives. auto: a row with fewer than num_negatives "
        "mined ones is filled up with its own. always: keep all, before the mined ones. never: replace them "
        "by the mined ones."
    ),
]


class CrossEncoderCheck(Bar):
    """A cross-encoder checks the chosen negatives (RocketQA, arXiv 2010.08191).

    A candidate that it scores above the limits, relative to its own score of the positive, counts as an
    answer and is rejected. The next candidate is checked instead, until the query has its negatives or no
    candidate is left.
    """

    model: ModelReference
    max_length: MaxLength | None = Field(
        None, description="Longest pair in tokens. Default: the model's own limit."
    )
    keep_scores: bool = Field(
        False,
        description="Write the cross-encoder's scores into the rows, as teacher scores for distillation "
        "and margin_mse.",
    )


class Filters(RankFilters):
    """Filters of a mine job: by rank, by score, by near repetition, by group, and by a cross-encoder."""

    near_duplicates: NearDuplicates = Field(default_factory=Near)
    same_group: bool = Field(
        False,
        description="Whether documents of the positive's own group (for example its page) may be negatives.",
    )
    cross_encoder: CrossEncoderCheck | None = None
