"""What reports say of who ranks: a model, BM25, or a reranker behind one of them."""

from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True, kw_only=True)
class SystemFacts:
    """None is what the system does not have."""

    model: str  # its reference
    family: str | None = None
    weights_sha256: str | None = None
    model_sha256: str | None = None  # weights, configurations of all modules, tokenizer
    max_length: int | None = None  # tokens of a text; of a cross-encoder, of a pair
    prompts: str | None = None
    similarity: str
    precision: str | None = None  # that it computes in
    dimension: int | None = None
    device: str | None = None
    tokenizer: str | None = None  # of BM25: see `core.ranking.bm25.TOKENIZER`
    index: str | None = None  # exact, faiss or plaid
    parts: int | None = None  # jobs that have searched a part of the corpus each
    # -- of a reranker
    reranks: str | None = None  # whose candidates it brings into order
    depth: int | None = None  # how many of them
    retriever_tokenizer: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """As reports and pages have it, without what the system does not have."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in found.items() if value is not None}
