"""How to read rows that do not have the usual form: columns, labels, encoding."""

import codecs
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from core.spec.parts.base import Strict

READING = ".reading.json"
"""The file of a sent dataset that keeps how its rows are read."""

Column = Literal["query", "positive", "negatives", "scores", "category", "group", "instruction", "difficulty"]
"""Roles of a column. ``group`` marks what belongs together: a page, a module, a conversation."""

_Name = Annotated[str, Field(min_length=1, max_length=200)] | Annotated[int, Field(ge=1, le=10_000)]
ColumnName = _Name | Annotated[list[_Name], Field(min_length=1, max_length=1000)]

Columns = Annotated[
    dict[Column, ColumnName],
    Field(
        description="Column of each role: {query: question_text, positive: body}. For a file without a "
        "header, numbers from 1: {query: 1, positive: 2}. negatives may be a list.",
    ),
]

_Number = Annotated[float, Field(ge=-1e9, le=1e9)]

_Value = Annotated[str, Field(max_length=200)] | bool | _Number


def _plain(value: str | bool | float) -> str | float:
    """1, 1.0, true and "1" are one value, as CSV and JSON write it."""
    try:
        return float(value)
    except ValueError:
        return str(value).strip()


class Labels(Strict):
    """Which pairs are positives, by a column of labels or scores.

    Give either values (``positive``, ``negative``) or thresholds (``min_positive``, ``max_negative``). A pair
    that is neither positive nor negative is left out and counted. A negative pair becomes a negative of the
    rows of its query.
    """

    column: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="Name of the column. Default: label, score, similarity and other usual names.",
    )
    positive: list[_Value] | None = Field(
        None, min_length=1, max_length=100, description="Values that mark a positive: [1] or [entailment]."
    )
    negative: list[_Value] | None = Field(
        None, max_length=100, description="Values that mark a negative: [0] or [contradiction]."
    )
    min_positive: _Number | None = Field(None, description="Smallest score of a positive.")
    max_negative: _Number | None = Field(
        None, description="Largest score of a negative. Default: no pair is a negative."
    )
    divide_by: float | None = Field(
        None,
        gt=0,
        le=1e9,
        description="Losses cosent and regression learn the score divided by this number: 5 for scores "
        "from 0 to 5.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "Labels":
        by_value = self.positive is not None or self.negative is not None
        by_threshold = self.min_positive is not None or self.max_negative is not None
        if by_value and by_threshold:
            raise ValueError(
                "give either values (positive, negative) or thresholds (min_positive, max_negative), not both"
            )
        if by_value and self.positive is None:
            raise ValueError("negative needs positive: give the values that mark a positive")
        if by_threshold and self.min_positive is None:
            raise ValueError("max_negative needs min_positive: give the smallest score of a positive")
        if {_plain(value) for value in self.positive or ()} & {_plain(v) for v in self.negative or ()}:
            raise ValueError("the same value is in positive and in negative")
        if self.max_negative is not None and self.min_positive is not None:
            if self.max_negative < self.min_positive:
                return self
            raise ValueError("max_negative must be below min_positive")
        return self

    @property
    def decides(self) -> bool:
        """Whether it says which pairs are positives."""
        return self.positive is not None or self.min_positive is not None


class RowOptions(Strict):
    """How to read rows that do not have the usual form."""

    columns: Columns = Field(default_factory=dict)
    labels: Literal["auto", "ignore"] | Labels = Field(
        "auto",
        description="Meaning of a label or score beside a pair. auto: in a label column, 1 marks a "
        "positive and 0 a negative of its query; other labels and scores are refused. ignore: "
        "every pair is a positive.",
    )
    encoding: str | None = Field(
        None,
        max_length=40,
        description="Encoding of text files that are not UTF-8, such as cp1252 or shift_jis.",
    )

    @field_validator("columns")
    @classmethod
    def _names_or_numbers(cls, value: dict[Column, ColumnName]) -> dict[Column, ColumnName]:
        names = [name for found in value.values() for name in (found if isinstance(found, list) else [found])]
        if len({isinstance(name, int) for name in names}) > 1:
            raise ValueError("give either all columns by name or, for a file without a header, all by number")
        if several := [
            role for role, found in value.items() if isinstance(found, list) and role != "negatives"
        ]:
            raise ValueError(f"{several[0]} must be one column; only negatives may be a list")
        return value

    @field_validator("encoding")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            name = codecs.lookup(value).name
            if "a1".encode(name).decode(name) != "a1" or name in ("punycode", "idna"):
                raise LookupError(value)
        except (LookupError, UnicodeError) as error:
            raise ValueError(f"{value!r} is not a known text encoding") from error
        return name
