"""``kind: prepare``: data as it is found, into one clean dataset that says what became of every row."""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from core.spec.base import Strict
from core.spec.job import JobSpec, Resources
from core.spec.refs import DatasetReference

Column = Literal["query", "positive", "negatives", "scores", "category", "group"]
"""What training knows of a row. ``group`` is what belongs together: a page, a module, a conversation."""


class Source(Strict):
    """Data in files, and how to read it."""

    ref: DatasetReference
    split: str | None = Field(None, pattern=r"^[\w-]+$", description="For a BEIR folder: which qrels file.")
    columns: dict[Column, Annotated[str, Field(min_length=1, max_length=200)]] = Field(
        default_factory=dict,
        description="What a column is called there, where it is not the usual: {query: question_text}.",
    )
    category: str | None = Field(
        None, min_length=1, max_length=200, description="Of all its rows that name none themselves."
    )


_OneOrSeveral = Annotated[
    Annotated[Source, Tag("<one>")] | Annotated[list[Source], Tag("<several>")],
    Discriminator(lambda value: "<several>" if isinstance(value, list) else "<one>"),
]


class Cleaning(Strict):
    """Rows that are left out, each with its reason. Lengths are characters."""

    min_query: int = Field(1, ge=1, le=1_000_000)
    max_query: int | None = Field(None, ge=1)
    min_document: int = Field(
        1, ge=1, le=1_000_000, description="Of a positive; shorter negatives are dropped."
    )
    max_document: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _consistent(self) -> "Cleaning":
        for role in ("query", "document"):
            most = getattr(self, f"max_{role}")
            if most is not None and most < getattr(self, f"min_{role}"):
                raise ValueError(f"max_{role} is below min_{role}")
        return self


class Near(Strict):
    """Texts that have most of their runs of three words in common (MinHash, Broder 1997)."""

    threshold: float = Field(0.9, ge=0.5, le=1, description="The least share in common (Jaccard).")


class Dedup(Strict):
    """Rows that say again what an earlier one has said are left out.

    ``near``: nearly the same query with nearly the same positive. Rows of which only one is nearly the same
    both stay, in the same split.
    """

    exact: bool = True
    near: Near | None = Field(default_factory=Near)


class Split(Strict):
    """Shares of the rows for evaluation. Rows that have a text, or nearly one, in common never come apart.

    ``by: group`` and ``by: category`` also keep those whole.
    """

    dev: float = Field(0.0, ge=0, lt=1)
    test: float = Field(0.0, ge=0, lt=1)
    by: Literal["text", "group", "category"] = "text"

    @model_validator(mode="after")
    def _consistent(self) -> "Split":
        if self.dev + self.test >= 1:
            raise ValueError("dev and test leave nothing to train on")
        return self


class PrepareSpec(JobSpec):
    """Makes a dataset that training and evaluation read as it is. Output: ``dataset``."""

    kind: Literal["prepare"]
    source: _OneOrSeveral = Field(
        description="JSONL, CSV, TSV or Parquet of rows, a BEIR folder; or several."
    )
    task: Literal["columns"] = Field("columns", description="columns: rows of query, positive[, negatives].")
    cleaning: Cleaning = Field(default_factory=Cleaning)
    dedup: Dedup = Field(default_factory=Dedup)
    split: Split = Field(default_factory=Split)
    licence: str | None = Field(
        None, min_length=1, max_length=500, description="Carried into everything that is made from it."
    )
    max_reject_share: float = Field(
        0.01, ge=0, le=1, description="Share of unreadable rows above which the job fails."
    )
    seed: int = Field(42, ge=0, lt=2**31)
    resources: Resources = Field(default_factory=lambda: Resources(gpus=0))

    @field_validator("source", mode="before")
    @classmethod
    def _bare_reference(cls, value: object) -> object:
        if isinstance(value, list):
            return [{"ref": item} if isinstance(item, str) else item for item in value]
        return {"ref": value} if isinstance(value, str) else value

    @field_validator("source")
    @classmethod
    def _some(cls, value: Source | list[Source]) -> Source | list[Source]:
        if isinstance(value, list) and not 1 <= len(value) <= 100:
            raise ValueError("between 1 and 100 sources are needed")
        return value

    @property
    def sources(self) -> list[Source]:
        """One or several."""
        return self.source if isinstance(self.source, list) else [self.source]

    def references(self) -> dict[str, str]:
        """Every reference in the spec, by the path where it stands."""
        if isinstance(self.source, list):
            return {f"source.{index}.ref": source.ref for index, source in enumerate(self.source)}
        return {"source.ref": self.source.ref}
