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
    Field(description="Precision of the model's computation. auto: bf16 if the GPU supports it, else fp32."),
]


class EmbedSpec(JobSpec):
    """Encode a corpus. Output: ``embeddings``: npy shards with ids, or a PLAID index."""

    REFERENCES: ClassVar = (ReferencePlace("model", "model"), ReferencePlace("corpus", "dataset"))

    OUTPUTS: ClassVar = {"embeddings": None}

    kind: Literal["embed"]
    model: ModelReference
    family: Literal["auto", "dense", "late_interaction"] = Field(
        "auto", description="auto: detected from the model's files."
    )
    corpus: DatasetReference | None = Field(
        None,
        description="What to encode: documents, chunks, the corpus of a retrieval set, or the documents "
        "of rows.",
    )
    split: SplitName | None = Field(None, description="BRIGHT only: the domain name.")
    texts: Annotated[list[Annotated[str, Field(max_length=1_000_000)]], Field(max_length=10_000)] | None = (
        Field(
            None, description="Texts to encode instead of a corpus. The id of a text is its position, from 0."
        )
    )
    role: Literal["document", "query"] = "document"
    prompts: Prompts = Field(default_factory=Prompts)
    max_length: MaxLength | None = Field(
        None, description="Longest text in tokens; the rest is cut. Default: the model's own limit."
    )
    precision: Precision = Field(
        "float32",
        description="Number format of the stored vectors. int8: 256 steps for each dimension. binary: the "
        "sign of each dimension. Late interaction: float32 or float16.",
    )
    dimension: Dimension | None = Field(
        None, description="Keep only this many leading dimensions of each vector (Matryoshka models)."
    )
    calibration: int = Field(
        100_000,
        ge=100,
        le=10_000_000,
        description="int8: number of texts whose vectors determine the range of each dimension.",
    )
    index: Literal["none", "plaid"] = Field(
        "none", description="plaid: write a PLAID index instead of vector shards (late interaction only)."
    )
    prune_embeddings: EmbeddingPruning = None
    compute: Compute = "auto"
    keep_texts: bool = Field(
        True, description="Store the texts with the vectors, so that reason search can show them."
    )
    shard: int = Field(50_000, ge=1, le=10_000_000, description="Shard size: number of texts in one file.")
    max_reject_share: RejectShare = Field(
        0.01, description="Share of unreadable documents above which the job fails."
    )
    seed: Seed = 42

    @model_validator(mode="after")
    def _consistent(self) -> "EmbedSpec":
        if (self.corpus is None) == (self.texts is None):
            raise ValueError("give either corpus or texts")
        if self.texts is not None and not self.texts:
            raise ValueError("texts must not be empty")
        if self.family == "dense" and (self.index == "plaid" or self.prune_embeddings):
            raise ValueError(
                "index: plaid and prune_embeddings need a late_interaction model, and family is dense"
            )
        if self.index == "plaid" and (self.precision != "float32" or self.role != "document"):
            raise ValueError(
                "index: plaid needs role: document and precision: float32; PLAID compresses the "
                "vectors itself"
            )
        return self
