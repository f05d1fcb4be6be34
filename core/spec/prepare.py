"""``kind: prepare``: data as it is found, into one clean dataset that says what became of every row."""

from typing import Annotated, ClassVar, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from core.spec.job import Difficulty, JobSpec, Resources
from core.spec.parts.base import BARE_REFERENCES, BY_SHAPE, Strict
from core.spec.parts.options import RejectShare, Seed, SplitName
from core.spec.parts.reference_places import FoundReference, ReferencePlace, find_references
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

Asking = Literal["headings", "descriptions", "first_sentences", "docstrings"]

BRIGHT_DOCUMENTS = "hf:xlangai/BRIGHT:documents"


class Source(RowOptions):
    """Data in files, and how to read it."""

    ref: DatasetReference
    format: Format = Field("auto", description="auto: by the names of the files and the first record.")
    split: SplitName | None = Field(
        None,
        description="Folders only: a split, a qrels file or a domain of BRIGHT.",
    )
    category: str | None = Field(
        None, min_length=1, max_length=200, description="Category of all rows that have none themselves."
    )
    corpus: DatasetReference | None = Field(
        None, description="Documents by id, for rows that name documents: Tevatron, ReasonIR HQ."
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
        1, ge=1, le=1_000_000, description="Of a positive; shorter negatives are dropped."
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

    ``by: group`` and ``by: category`` also keep those whole. ``train`` is what is left.
    """

    train: float | None = Field(None, gt=0, le=1, description="May be said; must be what dev and test leave.")
    dev: float = Field(0.0, ge=0, lt=1)
    test: float = Field(0.0, ge=0, lt=1)
    by: Literal["text", "group", "category"] = "text"

    @model_validator(mode="after")
    def _consistent(self) -> "Split":
        if self.dev + self.test >= 1:
            raise ValueError("dev and test leave nothing to train on")
        if self.train is not None and abs(self.train + self.dev + self.test - 1) > 1e-6:
            raise ValueError("train, dev and test do not sum to 1")
        return self


class Chunking(Strict):
    """Documents into passages, by their sections. No code block, table or sentence is ever cut.

    A passage is closed when the next section would make it longer than ``max_characters``; a section that is
    longer is cut between its blocks, and between sentences where one block is. Sections below
    ``min_characters`` are joined with what follows them.
    """

    by: Literal["section"] = "section"
    min_characters: Literal["auto"] | Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        "auto", description="auto: 3000, for a reranker 2000."
    )
    max_characters: Literal["auto"] | Annotated[int, Field(ge=50, le=1_000_000)] = Field(
        "auto", description="auto: 5000, for a reranker 4000."
    )
    overlap: int = Field(
        0,
        ge=0,
        le=100_000,
        description="Characters of whole sentences that a passage repeats of the one before.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "Chunking":
        if isinstance(self.max_characters, int):
            if isinstance(self.min_characters, int) and self.min_characters > self.max_characters:
                raise ValueError("min_characters is above max_characters")
            if self.overlap >= self.max_characters:
                raise ValueError("overlap is not below max_characters")
        return self


class Queries(Strict):
    """What asks for a passage, of what stands in it."""

    of: list[Asking] = Field(
        ["headings", "descriptions", "docstrings"],
        min_length=1,
        max_length=4,
        description="first_sentences are taken in any case of passages that have nothing else.",
    )
    per_passage: int = Field(4, ge=1, le=1000)
    hide: bool = Field(True, description="Take what asks out of what answers, or words alone would find it.")


class Mix(Strict):
    """Shares of the negatives. They must sum to 1."""

    easy: float = Field(ge=0, le=1)
    medium: float = Field(ge=0, le=1)
    hard: float = Field(ge=0, le=1)

    @model_validator(mode="after")
    def _whole(self) -> "Mix":
        if abs(self.easy + self.medium + self.hard - 1) > 1e-6:
            raise ValueError("easy, medium and hard do not sum to 1")
        return self

    def shares(self) -> dict[Difficulty, float]:
        return {"easy": self.easy, "medium": self.medium, "hard": self.hard}


class Negatives(Strict):
    """Passages that do not answer, drawn from the row's own split.

    easy: of another topic. medium: of another document on a like topic, or far from it in the same one. hard:
    beside it, or with most of the query's words in it (BM25).
    """

    per_query: int = Field(4, ge=0, le=100)
    mix: Literal["auto"] | Mix = Field("auto", description="auto: 25/40/35, for a reranker 20/35/45.")
    max_per_difficulty: int = Field(3, ge=1, le=100, description="Of one difficulty for one row.")
    max_uses: int = Field(50, ge=1, le=10**9, description="Rows that one passage is a negative of.")
    cross_category: float = Field(
        0.0, ge=0, le=1, description="Share of the hard ones that come from another category."
    )


class ShareOfPassages(Strict):
    """A number of rows as a share of a category's passages, or, of rows without passages, of all rows."""

    share: float = Field(gt=0, le=100)


class Balance(Strict):
    """How the rows are shared out among the categories, in each split: rows of those that have too many are
    left out."""

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
        description="A category with fewer gets a warning: a number, or {share: 0.25} of its passages.",
    )

    @model_validator(mode="after")
    def _whole(self) -> "Balance":
        if isinstance(self.shares, dict) and abs(sum(self.shares.values()) - 1) > 1e-6:
            raise ValueError("shares do not sum to 1")
        return self


class PrepareSpec(JobSpec):
    """Makes a dataset that training and evaluation read as it is. Output: ``dataset``."""

    REFERENCES: ClassVar = (ReferencePlace("source.*.ref|corpus", "dataset"),)

    kind: Literal["prepare"]
    source: _OneOrSeveral = Field(
        description="Rows, judged retrieval sets, documents; files, folders or archives; or several."
    )
    task: Literal["auto", "columns", "triplets", "retrieval", "chunks", "reasonir_hq"] = Field(
        "auto",
        description="columns: rows of query, positive[, negatives]. triplets: documents into queries, "
        "passages and negatives. retrieval: a corpus, queries and judgments. chunks: passages alone. "
        "reasonir_hq: ReasonIR's rows, with BRIGHT's documents for their ids. auto: what the source is.",
    )
    purpose: Literal["embedding", "reranker"] = Field(
        "embedding", description="What is trained on it: settles lengths and mix where they are auto."
    )
    cleaning: Cleaning = Field(default_factory=Cleaning)
    dedup: Dedup = Field(default_factory=Dedup)
    split: Split = Field(default_factory=Split)
    chunking: Chunking = Field(default_factory=Chunking)
    queries: Queries = Field(default_factory=Queries)
    negatives: Negatives = Field(default_factory=Negatives)
    balance: Balance = Field(default_factory=Balance)
    licence: str | None = Field(
        None, min_length=1, max_length=500, description="Carried into everything that is made from it."
    )
    max_reject_share: RejectShare = 0.01
    seed: Seed = 42
    resources: Resources = Field(default_factory=lambda: Resources(gpus=0))

    @model_validator(mode="after")
    def _sizes(self) -> "PrepareSpec":
        least, most = self.passage_characters
        if least > most:
            raise ValueError(f"chunking: passages of {least} to {most} characters cannot be")
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

    def find_references(self) -> list[FoundReference]:
        """Every reference in the spec, and the documents that `sources` adds."""
        sources = self.sources if isinstance(self.source, list) else self.sources[0]
        return list(find_references({"source": sources}, self.REFERENCES))
