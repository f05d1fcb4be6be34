"""``kind: mine``: documents that look like answers and are none, for every query of a dataset."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from core.spec.base import BARE_REFERENCES, Strict
from core.spec.job import JobSpec, Resources
from core.spec.prepare import Near
from core.spec.refs import DatasetReference, model_reference
from core.spec.train import DatasetSource, Prompts


def _bm25_or_model(text: str) -> str:
    return text if text == "bm25" else model_reference(text)


MiningModel = Annotated[
    str, Field(min_length=1, max_length=4096, examples=["bm25"]), AfterValidator(_bm25_or_model)
]


class Filters(Strict):
    """Which of a query's nearest documents may be its negatives. Scores are cosine (or dot product, or BM25).

    Ranks count from 0 among the documents that are no answers. Margins are below the score of the query's
    positive (of its lowest, where it has several), and lower the bar for negative scores, too.
    """

    range_min: int = Field(0, ge=0, le=1_000_000, description="The nearest so many are left out.")
    range_max: int = Field(100, ge=1, le=1_000_000, description="No negative is of this rank or behind it.")
    min_score: float | None = None
    max_score: float | None = None
    absolute_margin: float | None = Field(None, ge=0)
    relative_margin: float | None = Field(None, ge=0, le=10, description="Share of the positive's score.")
    positive_aware: float | None = Field(
        0.95, gt=0, le=1, description="At most this share of the positive's score (arXiv 2407.15831)."
    )
    near_duplicates: Near | None = Field(
        default_factory=Near, description="What nearly repeats an answer is an answer."
    )
    same_group: bool = Field(
        False, description="Whether documents of the positive's own group (its page, say) may be negatives."
    )

    @model_validator(mode="after")
    def _consistent(self) -> "Filters":
        if self.range_min >= self.range_max:
            raise ValueError("range_min is not below range_max")
        if self.min_score is not None and self.max_score is not None and self.min_score > self.max_score:
            raise ValueError("min_score is above max_score")
        return self


class MineSpec(JobSpec):
    """Finds negatives for every row of a dataset. Outputs: ``dataset`` and ``report``."""

    kind: Literal["mine"]
    dataset: Annotated[DatasetSource, BARE_REFERENCES] = Field(
        description="Rows of query and positive: a file, a folder, a prepared dataset."
    )
    corpus: DatasetReference | None = Field(
        None, description="Where negatives come from. Default: the dataset's own documents."
    )
    model: MiningModel = Field("sentence-transformers/all-MiniLM-L6-v2", description="A bi-encoder, or bm25.")
    num_negatives: int = Field(4, ge=1, le=1000)
    filters: Filters = Field(default_factory=Filters)
    sampling: Literal["top", "random"] = "top"
    prompts: Prompts = Field(default_factory=Prompts)
    max_length: Annotated[int, Field(ge=8, le=1_000_000)] | None = Field(
        None, description="Tokens of a text; default: what the model is set to."
    )
    half: bool = Field(False, description="Keep embeddings in float16: half the disk, scores to 3 digits.")
    max_reject_share: float = Field(
        0.01, ge=0, le=1, description="Share of unreadable rows above which the job fails."
    )
    seed: int = Field(42, ge=0, lt=2**31)
    resources: Resources = Field(
        default_factory=lambda: Resources(gpus=0), description="A small model mines on the CPU by default."
    )

    def references(self) -> dict[str, str]:
        """Every reference in the spec, by the path where it stands."""
        found = {"dataset.ref": self.dataset.ref}
        if self.corpus is not None:
            found["corpus"] = self.corpus
        if self.model != "bm25":
            found["model"] = self.model
        return found
