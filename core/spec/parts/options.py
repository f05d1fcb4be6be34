"""Types of fields that several kinds of jobs have, with their limits, patterns and descriptions."""

from typing import Annotated, Literal

from pydantic import Field

Seed = Annotated[int, Field(ge=0, lt=2**31)]

RejectShare = Annotated[
    float, Field(ge=0, le=1, description="Share of unreadable rows above which the job fails.")
]

SplitName = Annotated[str, Field(pattern=r"^[\w-]+$", max_length=100)]
"""Name of a split, of a qrels file, or of a BRIGHT domain."""

ReportName = Annotated[str, Field(pattern=r"^[\w.-]+$", max_length=100)]
"""Name of a model or a dataset in metrics and reports."""

MaxLength = Annotated[int, Field(ge=8, le=1_000_000)]
"""Longest input of a model, in tokens; the rest is cut."""

Dimension = Annotated[int, Field(ge=1, le=65_536)]
"""Number of leading dimensions of an embedding."""

Arithmetic = Literal["auto", "fp32", "fp16", "bf16"]
"""Precision of a model's computation."""

Sampling = Literal["top", "random"]
"""Which of the allowed documents become negatives."""

EncodingBatchSize = Annotated[
    int | None,
    Field(
        ge=1,
        le=65_536,
        description="Number of texts encoded at once. Default: as many as the token budget allows.",
    ),
]

Promote = Literal["if_better", "if_not_worse"]
"""Which model becomes ``NAME@current``: one that is significantly better, or one that is not worse."""
