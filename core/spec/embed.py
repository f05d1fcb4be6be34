"""``kind: embed``: a corpus as vectors that a search engine, or ``reason search``, can use."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from core.spec.job import JobSpec
from core.spec.parts.models import EmbeddingPruning, Prompts
from core.spec.parts.options import Arithmetic, Dimension, MaxLength, RejectShare, Seed, SplitName
from core.spec.parts.reference_places import ReferencePlace
from core.spec.parts.refs import DatasetReference, ModelReference

Precision = Literal["float32", "float16", "int8", "binary"]
"""Of stored vectors."""

Compute = Annotated[
    Arithmetic,
    Field(description="The model's arithmetic. auto: bf16 where a GPU has it, else fp32."),
]


class EmbedSpec(JobSpec):
    """Encodes a corpus. Output: ``embeddings``, npy shards with ids, or a PLAID index."""

    REFERENCES: ClassVar = (ReferencePlace("model", "model"), ReferencePlace("corpus", "dataset"))

    kind: Literal["embed"]
    model: ModelReference
    family: Literal["auto", "dense", "late_interaction"] = Field(
        "auto", description="auto: as the model's files say."
    )
    corpus: DatasetReference | None = Field(
        None, description="Documents, chunks, a retrieval set's corpus, or rows, whose documents they are."
    )
    split: SplitName | None = Field(None, description="BRIGHT: the domain.")
    texts: Annotated[list[Annotated[str, Field(max_length=1_000_000)]], Field(max_length=10_000)] | None = (
        Field(None, description="In place of a corpus; their ids are their numbers, from 0.")
    )
    role: Literal["document", "query"] = "document"
    prompts: Prompts = Field(default_factory=Prompts)
    max_length: MaxLength | None = Field(
        None, description="Tokens of a text; default: what the model is set to."
    )
    precision: Precision = Field(
        "float32",
        description="int8: each dimension in 256 steps; binary: its sign. Late interaction: floats.",
    )
    dimension: Dimension | None = Field(None, description="Only the first so many (of Matryoshka models).")
    calibration: int = Field(
        100_000, ge=100, le=10_000_000, description="int8: texts whose vectors settle each dimension's range."
    )
    index: Literal["none", "plaid"] = Field(
        "none", description="plaid: write a PLAID index instead of vector shards (late interaction only)."
    )
    prune_embeddings: EmbeddingPruning = None
    compute: Compute = "auto"
    keep_texts: bool = Field(True, description="Texts go along, so that reason search can show them.")
    shard: int = Field(50_000, ge=1, le=10_000_000, description="Texts in a file.")
    max_reject_share: RejectShare = Field(
        0.01, description="Share of unreadable documents above which the job fails."
    )
    seed: Seed = 42

    @model_validator(mode="after")
    def _consistent(self) -> "EmbedSpec":
        if (self.corpus is None) == (self.texts is None):
            raise ValueError("give a corpus, or texts")
        if self.texts is not None and not self.texts:
            raise ValueError("texts is empty")
        if self.family == "dense" and (self.index == "plaid" or self.prune_embeddings):
            raise ValueError("index plaid and prune_embeddings are of late_interaction models alone")
        if self.index == "plaid" and (self.precision != "float32" or self.role != "document"):
            raise ValueError("a PLAID index holds documents, and compresses their vectors itself")
        return self
