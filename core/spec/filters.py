"""Which documents may be a query's negatives: asked for by mine jobs, and by trainings that mine anew."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from core.spec.parts.base import Strict
from core.spec.parts.options import MaxLength
from core.spec.parts.refs import ModelReference
from core.spec.prepare import Near


class Bar(Strict):
    """The highest score that a negative may have, by the score of the query's positive (of its lowest, where
    it has several). The lowest of all that are asked for; margins lower it for negative scores, too."""

    max_score: float | None = Field(None, ge=-1e9, le=1e9)
    absolute_margin: float | None = Field(None, ge=0, le=1e9, description="So much below the positive.")
    relative_margin: float | None = Field(
        None, ge=0, le=10, description="So much below the positive, as a share of its score."
    )
    positive_aware: float | None = Field(
        0.95, gt=0, le=1, description="At most this share of the positive's score (arXiv 2407.15831)."
    )


class Fallback(Strict):
    """Negatives by rank, where the scores of a model lie so close together that a bar by score removes most
    candidates.

    A query that is short of negatives takes candidates from rank ``range_min`` on that score below its
    positive. Where all candidates score above the positive, it takes them from the deeper half of the ranks.
    """

    range_min: int = Field(
        10,
        ge=0,
        le=1_000_000,
        description="The nearest candidates that are never taken by rank; at most a tenth of the corpus.",
    )


class RankFilters(Bar):
    """By ranks and scores: cosine, dot product, MaxSim or BM25. Ranks count from 0 among the documents that
    are no answers."""

    range_min: int = Field(0, ge=0, le=1_000_000, description="The nearest so many are left out.")
    range_max: int = Field(100, ge=1, le=1_000_000, description="No negative is of this rank or behind it.")
    min_score: float | None = Field(None, ge=-1e9, le=1e9)
    max_filtered_share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="When one filter removes more than this share of all candidates, the job warns with the "
        "scores and the setting to change; when the bar does, fallback applies.",
    )
    fallback: Fallback | None = Field(
        default_factory=Fallback,
        description="How queries get negatives when the bar removes more than max_filtered_share of the "
        "candidates. null: they stay without.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "RankFilters":
        if self.range_min >= self.range_max:
            raise ValueError("range_min is not below range_max")
        if self.min_score is not None and self.max_score is not None and self.min_score > self.max_score:
            raise ValueError("min_score is above max_score")
        return self


NearDuplicates = Annotated[Near | None, Field(description="What nearly repeats an answer is an answer.")]

KeepOwn = Annotated[
    Literal["auto", "always", "never"],
    Field(
        description="What becomes of negatives that the rows have. auto: a row that gets fewer than "
        "num_negatives keeps its own to fill up. always: all stay, before the mined ones. never: mined ones "
        "take their place."
    ),
]


class CrossEncoderCheck(Bar):
    """A model that reads query and document together has the last word (RocketQA, arXiv 2010.08191).

    What it scores above the bar, by its own score of the positive, is taken for an answer. The next in turn
    is asked instead, until a query has its negatives or no candidate is left.
    """

    model: ModelReference
    max_length: MaxLength | None = Field(
        None, description="Tokens of a pair; default: what the model is set to."
    )
    keep_scores: bool = Field(
        False, description="The rows' scores are the cross-encoder's: a teacher for distillation, margin_mse."
    )


class Filters(RankFilters):
    """Of a mine job: by ranks, by scores, by what texts say, and by a cross-encoder."""

    near_duplicates: NearDuplicates = Field(default_factory=Near)
    same_group: bool = Field(
        False, description="Whether documents of the positive's own group (its page, say) may be negatives."
    )
    cross_encoder: CrossEncoderCheck | None = None
