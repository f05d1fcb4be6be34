"""``kind: prepare``: files into one clean dataset, with a count of every row that is left out."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from core.spec.job import Difficulty, JobSpec, Resources
from core.spec.parts.base import BARE_REFERENCES, BY_SHAPE, Strict
from core.spec.parts.options import RejectShare, Seed, SplitName
from core.spec.parts.queries import Queries
from core.spec.parts.reference_places import ReferencePlace
from core.spec.parts.refs import DatasetReference
from core.spec.parts.rows import RowOptions

Format = Literal[
    "auto",
    "rows",
    "beir",
    "trec",
    "msmarco",
    "bright",
    "bright_long",
    "reasonir",
    "markdown",
    "rst",
    "python_source",
    "chunks",
]

BRIGHT_DOCUMENTS = "hf:xlangai/BRIGHT:documents"


class Source(RowOptions):
    """Data in files, and how to read it."""

    ref: DatasetReference
    format: Format = Field("auto", description="auto: detected from file names and the first record.")
    split: SplitName | None = Field(
        None,
        description="Folders only: name of a split, of a qrels file, or of a BRIGHT domain.",
    )
    category: str | None = Field(
        None, min_length=1, max_length=200, description="Category of rows that have none of their own."
    )
    corpus: DatasetReference | None = Field(
        None,
        description="Corpus for rows that contain document ids instead of texts (Tevatron, ReasonIR HQ).",
    )


_OneOrSeveral = Annotated[
    Annotated[Source, Tag("<one>")]
    | Annotated[list[Source], Field(min_length=1, max_length=100), Tag("<several>")],
    BY_SHAPE,
    BARE_REFERENCES,
]


class Cleaning(Strict):
    """Rows that are left out, each with its reason. Lengths are characters."""

    min_query: int = Field(1, ge=1, le=1_000_000)
    max_query: int | None = Field(None, ge=1, le=10**9)
    min_document: int = Field(
        1,
        ge=1,
        le=1_000_000,
        description="Rows with a shorter positive are left out; shorter negatives are dropped from their "
        "rows.",
    )
    max_document: int | None = Field(None, ge=1, le=10**9)

    @model_validator(mode="after")
    def _consistent(self) -> "Cleaning":
        for role in ("query", "document"):
            most = getattr(self, f"max_{role}")
            if most is not None and most < getattr(self, f"min_{role}"):
                raise ValueError(f"max_{role} is below min_{role}")
        return self


class Near(Strict):
    """Near repetitions: texts that share most of their three-word sequences (MinHash, Broder 1997)."""

    threshold: float = Field(
        0.9,
        ge=0.5,
        le=1,
        description="Smallest share of common three-word sequences (Jaccard) for which two texts are near "
        "repetitions.",
    )


class Dedup(Strict):
    """Leave out rows that repeat an earlier row.

    ``near``: rows with nearly the same query and nearly the same positive. If only one of the two is nearly
    the same, both rows stay, in the same split.
    """

    exact: bool = True
    near: Near | None = Field(default_factory=Near)


class Split(Strict):
    """Shares of the rows for evaluation. Rows that share a text, or nearly the same text, stay in one split.

    ``by: group`` and ``by: category`` also keep groups or categories in one split. ``by: auto`` keeps groups
    in one split if all rows have one and the shares can be met so; else it is ``text``, and the job says so.
    ``train`` is the rest.
    """

    train: float | None = Field(None, gt=0, le=1, description="Optional; must equal 1 - dev - test.")
    dev: float = Field(0.0, ge=0, lt=1)
    test: float = Field(0.0, ge=0, lt=1)
    by: Literal["text", "group", "category", "auto"] = "text"

    @model_validator(mode="after")
    def _consistent(self) -> "Split":
        if self.dev + self.test >= 1:
            raise ValueError("the sum of dev and test must be below 1: no rows are left to train on")
        if self.train is not None and abs(self.train + self.dev + self.test - 1) > 1e-6:
            raise ValueError("train, dev and test must sum to 1")
        return self


class Chunking(Strict):
    """Cut documents into passages at their sections. Code blocks, tables and sentences are never cut.

    A passage ends before the section that would make it longer than ``max_characters``. A longer section is
    cut between its blocks, and a longer block between its sentences. Sections below ``min_characters`` are
    joined with the section that follows.
    """

    by: Literal["section"] = "section"
    min_characters: Literal["auto"] | Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        "auto", description="auto: 3000; 2000 for purpose: reranker."
    )
    max_characters: Literal["auto"] | Annotated[int, Field(ge=50, le=1_000_000)] = Field(
        "auto", description="auto: 5000; 4000 for purpose: reranker."
    )
    overlap: int = Field(
        0,
        ge=0,
        le=100_000,
        description="Characters, in whole sentences, that a passage repeats from the one before.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "Chunking":
        if isinstance(self.max_characters, int):
            if isinstance(self.min_characters, int) and self.min_characters > self.max_characters:
                raise ValueError("min_characters must not be above max_characters")
            if self.overlap >= self.max_characters:
                raise ValueError("overlap must be below max_characters")
        return self


class Mix(Strict):
    """Shares of the negatives. They must sum to 1."""

    easy: float = Field(ge=0, le=1)
    medium: float = Field(ge=0, le=1)
    hard: float = Field(ge=0, le=1)

    @model_validator(mode="after")
    def _whole(self) -> "Mix":
        if abs(self.easy + self.medium + self.hard - 1) > 1e-6:
            raise ValueError("easy, medium and hard must sum to 1")
        return self

    def shares(self) -> dict[Difficulty, float]:
        return {"easy": self.easy, "medium": self.medium, "hard": self.hard}


class Negatives(Strict):
    """Passages that do not answer the query, drawn from the row's own split.

    easy: from another topic. medium: from another document on a similar topic, or far from the positive in
    the same document. hard: next to the positive, or with most of the query's words (BM25).
    """

    per_query: int = Field(4, ge=0, le=100)
    mix: Literal["auto"] | Mix = Field(
        "auto",
        description="Shares of easy, medium and hard negatives. auto: 25/40/35; 20/35/45 for purpose: "
        "reranker.",
    )
    max_per_difficulty: int = Field(
        3, ge=1, le=100, description="Largest number of negatives of one difficulty in one row."
    )
    max_uses: int = Field(
        50, ge=1, le=10**9, description="Largest number of rows that one passage may be a negative of."
    )
    cross_category: float = Field(
        0.0, ge=0, le=1, description="Share of the hard negatives that come from another category."
    )


class ShareOfPassages(Strict):
    """A number of rows, as a share of the category's passages (of all rows if there are no passages)."""

    share: float = Field(gt=0, le=100)


class Balance(Strict):
    """Shares of the categories in each split: rows of categories with too many rows are left out."""

    shares: (
        Literal["even"]
        | Annotated[
            dict[Annotated[str, Field(max_length=200)], Annotated[float, Field(gt=0, le=1)]],
            Field(max_length=10_000),
        ]
        | None
    ) = None
    min_rows: Annotated[
        Annotated[int, Field(ge=0, le=10**9), Tag("<number>")] | Annotated[ShareOfPassages, Tag("<share>")],
        Discriminator(lambda value: "<number>" if isinstance(value, int | float) else "<share>"),
    ] = Field(
        300,
        description="Warn about categories with fewer rows: a number, or {share: 0.25} of the category's "
        "passages.",
    )

    @model_validator(mode="after")
    def _whole(self) -> "Balance":
        if isinstance(self.shares, dict) and abs(sum(self.shares.values()) - 1) > 1e-6:
            raise ValueError("shares must sum to 1")
        return self


class PrepareSpec(JobSpec):
    """Make a dataset that training and evaluation can read.

    Outputs: ``dataset``; for queries that are made of documents, also ``report``.
    """

    REFERENCES: ClassVar = (
        ReferencePlace("source.*.ref|corpus", "dataset"),
        *(ReferencePlace(f"queries.{path}", role) for path, role in Queries.QUERY_REFERENCES),
    )

    OUTPUTS: ClassVar = {"dataset": "dataset", "report": None}

    kind: Literal["prepare"]
    source: _OneOrSeveral = Field(
        description="One or several sources: rows, judged retrieval sets or documents, as files, folders "
        "or archives."
    )
    task: Literal["auto", "columns", "triplets", "retrieval", "chunks", "reasonir_hq"] = Field(
        "auto",
        description="What to make. columns: rows of query, positive[, negatives]. triplets: queries, "
        "passages and negatives from documents. retrieval: a corpus, queries and judgments. "
        "chunks: passages only. reasonir_hq: ReasonIR's rows, with BRIGHT's documents in "
        "place of their ids. auto: triplets for documents, columns for rows.",
    )
    purpose: Literal["embedding", "reranker"] = Field(
        "embedding",
        description="Model that the dataset is for. Decides passage lengths and the mix of negatives "
        "where they are auto.",
    )
    cleaning: Cleaning = Field(default_factory=Cleaning)
    dedup: Dedup = Field(default_factory=Dedup)
    sample: int | None = Field(
        None,
        ge=1,
        le=10**9,
        description="Keep only this many rows, of all splits together, drawn with the seed.",
    )
    split: Split = Field(default_factory=Split)
    chunking: Chunking = Field(default_factory=Chunking)
    queries: Queries = Field(default_factory=Queries)
    negatives: Negatives = Field(default_factory=Negatives)
    balance: Balance = Field(default_factory=Balance)
    licence: str | None = Field(
        None,
        min_length=1,
        max_length=500,
        description="Licence of the data. Copied into everything that is made from the dataset.",
    )
    max_reject_share: RejectShare = 0.01
    seed: Seed = 42
    resources: Resources = Field(default_factory=lambda: Resources(gpus=0))

    @model_validator(mode="after")
    def _judging(self) -> "PrepareSpec":
        if self.queries.real is None:
            return self
        if self.task != "retrieval":
            raise ValueError("queries.real needs task: retrieval")
        if self.split.dev or self.split.test:
            raise ValueError("queries.real makes the split test: split must be left out")
        return self

    @model_validator(mode="after")
    def _sizes(self) -> "PrepareSpec":
        least, most = self.passage_characters
        if least > most:
            raise ValueError(f"chunking: min_characters ({least}) must not be above max_characters ({most})")
        return self

    @property
    def sources(self) -> list[Source]:
        """One or several. ReasonIR HQ's ids mean BRIGHT's documents unless something else is said."""
        found = self.source if isinstance(self.source, list) else [self.source]
        if self.task != "reasonir_hq":
            return found
        return [
            source.model_copy(update={"format": "reasonir", "corpus": source.corpus or BRIGHT_DOCUMENTS})
            for source in found
        ]

    @property
    def passage_characters(self) -> tuple[int, int]:
        """The least and the most of a passage."""
        least, most = (3000, 5000) if self.purpose == "embedding" else (2000, 4000)
        asked = self.chunking
        if asked.max_characters != "auto":
            most = asked.max_characters
            least = min(least, most * 3 // 5)
        if asked.min_characters != "auto":
            least = asked.min_characters
        return least, most

    @property
    def difficulty_mix(self) -> dict[Difficulty, float]:
        if self.negatives.mix != "auto":
            return self.negatives.mix.shares()
        if self.purpose == "embedding":
            return {"easy": 0.25, "medium": 0.40, "hard": 0.35}
        return {"easy": 0.20, "medium": 0.35, "hard": 0.45}

    def _with_references(self) -> Mapping[str, Any]:
        """The spec's own, and the documents that `sources` adds."""
        sources = self.sources if isinstance(self.source, list) else self.sources[0]
        return {"source": sources, "queries": self.queries}
