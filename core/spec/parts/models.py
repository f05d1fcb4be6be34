"""What a model is, and how it reads texts."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from core.spec.parts.base import Strict
from core.spec.parts.refs import model_reference

Family = Literal["dense", "late_interaction", "cross_encoder"]


def _bm25_or_model(text: str) -> str:
    return text if text == "bm25" else model_reference(text)


ModelOrWords = Annotated[
    str, Field(min_length=1, max_length=4096, examples=["bm25"]), AfterValidator(_bm25_or_model)
]
"""A model's reference, or bm25."""


UNLIMITED = 1 << 20
"""Tokens of a text that a model reads which cuts none: the mean of any number can be taken."""


def format_length(tokens: int) -> str:
    """For people."""
    return "all" if tokens >= UNLIMITED else f"{tokens:,}"


class Prompts(Strict):
    """Text that is put before every query, or before every document."""

    query: str | None = Field(None, max_length=2000)
    document: str | None = Field(None, max_length=2000)

    def said(self) -> str:
        """For reports: those that put something in front."""
        named = [
            f"{role} {text!r}" for role, text in (("query", self.query), ("document", self.document)) if text
        ]
        return ", ".join(named) or "none"


class PruneEmbeddings(Strict):
    """Documents keep fewer vectors than they have tokens (late interaction).

    ``hierarchical`` averages similar vectors (Clavié et al. 2024, arXiv 2409.14683); ``attention`` keeps the
    vectors that the document's other vectors attend to most.
    """

    strategy: Literal["hierarchical", "attention"] = "hierarchical"
    pool_factor: float = Field(
        2.0, ge=1, le=1000, description="hierarchical: average number of vectors that are merged into one."
    )
    keep_ratio: float = Field(0.6, gt=0, le=1, description="attention: share of the vectors that is kept.")
    protected_tokens: int = Field(
        2,
        ge=0,
        le=1000,
        description="Number of leading tokens that always keep their vectors: [CLS] and [D].",
    )


EmbeddingPruning = Annotated[
    PruneEmbeddings | None,
    Field(description="Late interaction only: documents keep fewer vectors than they have tokens."),
]
