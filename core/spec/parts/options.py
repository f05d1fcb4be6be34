"""Types of fields that several kinds of jobs have: bounds, forms and descriptions, each written once."""

from typing import Annotated, Literal

from pydantic import Field

Seed = Annotated[int, Field(ge=0, lt=2**31)]

RejectShare = Annotated[
    float, Field(ge=0, le=1, description="Share of unreadable rows above which the job fails.")
]

SplitName = Annotated[str, Field(pattern=r"^[\w-]+$", max_length=100)]
"""A split of a dataset, a qrels file, or a domain of BRIGHT."""

ReportName = Annotated[str, Field(pattern=r"^[\w.-]+$", max_length=100)]
"""What metrics and reports call a model or a dataset."""

MaxLength = Annotated[int, Field(ge=8, le=1_000_000)]
"""Tokens after which a model cuts a text."""

Dimension = Annotated[int, Field(ge=1, le=65_536)]
"""Of an embedding: so many of its first numbers."""

Arithmetic = Literal["auto", "fp32", "fp16", "bf16"]
"""Numbers that a model computes with."""

Sampling = Literal["top", "random"]
"""Which of the documents that may be negatives are taken."""

EncodingBatchSize = Annotated[
    int | None,
    Field(
        ge=1,
        le=65_536,
        description="Texts that are encoded at once. Default: as many as the token budget allows.",
    ),
]
