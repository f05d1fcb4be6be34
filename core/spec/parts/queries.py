"""How a prepare job makes queries for documents that have none: ``queries`` of its spec."""

from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from core.spec.parts.base import Strict
from core.spec.parts.models import ModelOrWords
from core.spec.parts.options import MaxLength, Seed
from core.spec.parts.reference_places import ReferencePlace
from core.spec.parts.refs import DatasetReference, ModelReference

QuerySource = Literal[
    "titles",
    "questions",
    "description",
    "docstring",
    "links",
    "definitions",
    "captions",
    "first_sentence",
    "inverse_cloze",
    "crops",
    "llm",
]
"""What queries are made of."""

QueryKind = Literal["given"] | QuerySource
"""Where a query comes from. ``given``: it stands beside the passage in the source."""

SELF_SUPERVISED: frozenset[QueryKind] = frozenset({"inverse_cloze", "crops"})
"""Queries that are parts of their passages. They are never tested on."""

DEFAULT_WEIGHTS: dict[QuerySource, float] = {
    "titles": 1.0,
    "questions": 2.0,
    "description": 1.0,
    "docstring": 1.0,
    "links": 1.0,
    "definitions": 1.0,
    "captions": 0.5,
    "first_sentence": 0.0,
}

_OLD_NAMES = {
    "headings": "titles",
    "descriptions": "description",
    "docstrings": "docstring",
    "first_sentences": "first_sentence",
}


def with_weights(value: Any) -> Any:
    """A list of kinds as a mapping of each to its default weight. Names of older versions are read, too."""
    if not isinstance(value, list | dict) or not value:
        raise ValueError("must be a list of kinds, or kinds with weights: [titles, questions]")
    if isinstance(value, list) and value and all(isinstance(name, str) for name in value):
        names = [_OLD_NAMES.get(name, name) for name in value]
        return {name: DEFAULT_WEIGHTS.get(name, 1.0) for name in names}  # type: ignore[call-overload]
    return value


Weight = Annotated[float, Field(gt=0, le=1000)]
KindWeight = Annotated[float, Field(ge=0, le=1000)]


QueryType = Literal["question", "keywords", "how_to", "symptom", "multi_hop"]
"""What a language model is asked to write. ``multi_hop``: a question that needs two sections."""


_DEFAULT_TYPES: dict[QueryType, float] = {"question": 2.0, "keywords": 1.0, "how_to": 1.0}


def _endpoint(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise ValueError("an endpoint begins with http:// or https://, for example http://127.0.0.1:11434/v1")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"an endpoint must be a URL: {error}") from error
    if not parts.hostname or port == 0 or not text.isascii() or any(letter.isspace() for letter in text):
        raise ValueError("an endpoint must be a URL in ASCII, with a host")
    if parts.username is not None or parts.password is not None or "?" in text or "#" in text:
        raise ValueError("an endpoint has no user name, query or fragment: a key belongs in the environment")
    return text.rstrip("/")


class LanguageModel(Strict):
    """Queries that a language model writes, over an endpoint that speaks OpenAI's chat completions.

    Every answer is stored on the host before it is used: a job that is interrupted, and a second job, pay for
    no answer twice.
    """

    endpoint: Annotated[str, Field(min_length=8, max_length=2048), AfterValidator(_endpoint)] = Field(
        description="Base URL, to which /chat/completions is added: https://api.openai.com/v1, or "
        "http://127.0.0.1:11434/v1 for Ollama. The service calls only endpoints that its operator allows "
        "(REASON_LLM_ENDPOINTS)."
    )
    model: str = Field(min_length=1, max_length=200, description="Name of the model at the endpoint.")
    api_key_env: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{0,99}$")] | None = Field(
        None,
        description="Name of the environment variable of the worker that holds the key. The key itself "
        "enters no spec, database or log.",
    )
    per_passage: int = Field(3, ge=1, le=50, description="Queries that are asked for in one call.")
    types: Annotated[dict[QueryType, Weight], Field(min_length=1)] = Field(
        default_factory=lambda: dict(_DEFAULT_TYPES),
        description="Types of queries, with weights: each query that is asked for is drawn from them.",
    )
    examples: list[Annotated[str, Field(min_length=1, max_length=2000)]] = Field(
        default_factory=list,
        max_length=100,
        description="Real queries of your users. A few of them, drawn for each passage, show the style.",
    )
    language: str | None = Field(
        None, min_length=2, max_length=50, description="Language of the queries. Default: the passage's."
    )
    temperature: float = Field(0.7, ge=0, le=2)
    max_tokens: int = Field(400, ge=16, le=32_768, description="Longest answer, in tokens.")
    concurrency: int = Field(8, ge=1, le=256, description="Calls at the same time.")
    requests_per_minute: int | None = Field(None, ge=1, le=1_000_000)
    max_tokens_total: int | None = Field(
        None,
        ge=1,
        le=10**12,
        description="Budget: no call is made once the answers, stored ones included, have used this many "
        "tokens (prompts and answers).",
    )
    max_retries: int = Field(
        6, ge=0, le=100, description="Further tries of a call that fails, with growing pauses."
    )
    timeout_seconds: float = Field(60, gt=0, le=3600, description="Of one try.")
    on_invalid: Literal["drop", "retry"] = Field(
        "retry",
        description="What happens after an answer without any usable query. retry: ask once more, with "
        "another seed. drop: leave the passage without such queries.",
    )
    sample: int | None = Field(
        None, ge=1, le=10**9, description="Ask for this many passages, drawn with the seed. Default: all."
    )
    seed: Seed = 42


class RoundTrip(Strict):
    """A query must find its own passage."""

    model: ModelOrWords = Field("bm25", description="Dense model that searches all passages, or bm25.")
    top_k: int = Field(20, ge=1, le=10_000, description="Ranks among which the passage must be.")
    max_length: MaxLength | None = None


class TeacherScore(Strict):
    """A cross-encoder scores each query with its passage (GPL, arXiv 2112.07577)."""

    @model_validator(mode="after")
    def _does_something(self) -> "TeacherScore":
        if self.min_score is None and not self.keep_scores:
            raise ValueError("cross_encoder needs min_score or keep_scores: otherwise it changes nothing")
        return self

    model: ModelReference
    min_score: float | None = Field(None, ge=-1e9, le=1e9, description="Leave out queries that score less.")
    keep_scores: bool = Field(
        False, description="Write the scores into the rows, as a teacher's, for margin_mse and distillation."
    )
    max_length: MaxLength | None = None


class NoCopy(Strict):
    """A query must not be copied out of its passage."""

    max_overlap: float = Field(
        0.8,
        gt=0,
        le=1,
        description="Largest share of the query's sequences of three words that the passage may contain.",
    )


class Judge(Strict):
    """The language model judges its own queries: whether the passage answers them, from 1 to 10."""

    min_score: int = Field(7, ge=1, le=10)


class QueryFilters(Strict):
    """Which queries are kept. Each filter's count and examples are in the report."""

    ambiguous: Literal["drop", "extend", "keep"] = Field(
        "extend",
        description="A title that different passages share. extend: put the titles above before it until "
        "it is specific, and leave it out if it is not. drop: leave it out. keep: all its passages are "
        "answers.",
    )
    boilerplate: Annotated[int, Field(ge=2, le=1_000_000)] | None = Field(
        5,
        description="A section that stands, nearly the same, under this many different page titles asks for "
        "nothing. null: all sections may.",
    )
    near_duplicates: Annotated[float, Field(ge=0.5, le=1)] | None = Field(
        0.9,
        description="Leave out a query of a language model that shares this part of its words with "
        "another query of the same passage. null: keep all.",
    )
    no_copy: NoCopy | None = Field(
        default_factory=NoCopy, description="Only for queries of a language model. null: do not check."
    )
    round_trip: RoundTrip | None = None
    cross_encoder: TeacherScore | None = None
    judge: Judge | None = Field(None, description="Only for queries of a language model.")


class Queries(Strict):
    """Make queries for a passage from its own text, or by a language model."""

    QUERY_REFERENCES: ClassVar = (
        ReferencePlace("real", "dataset"),
        ReferencePlace("filters.round_trip.model", "model"),
        ReferencePlace("filters.cross_encoder.model", "model"),
    )

    of: Annotated[dict[QuerySource, KindWeight], Field(min_length=1), BeforeValidator(with_weights)] = Field(
        default_factory=lambda: dict(DEFAULT_WEIGHTS),
        description="Where queries come from: a list of kinds, or kinds with weights. A weight below 1 is "
        "the chance that a possible query of the kind is used. More than per_passage of one passage are "
        "drawn by the weights. A document without any gets one for each passage, whatever its weight, so "
        "a kind of weight 0 is used only there. Queries of llm are all used, on top of per_passage.",
    )
    per_passage: int = Field(4, ge=1, le=1000)
    hide: bool = Field(
        True,
        description="Remove the query's text from its passage. Otherwise matching words alone would find "
        "the passage.",
    )
    llm: LanguageModel | None = None
    real: DatasetReference | None = Field(
        None,
        description="Queries that people have asked, with the document that answered each: rows of query and "
        "document (a path, a URL, or the id of a passage). The dataset then judges by them: no query is "
        "made, and its only split is test. Needs task: retrieval.",
    )
    filters: QueryFilters = Field(default_factory=QueryFilters)

    @model_validator(mode="after")
    def _consistent(self) -> "Queries":
        if "llm" in self.of and self.llm is None:
            raise ValueError("of contains llm: give llm {endpoint, model}")
        if self.llm is not None and "llm" not in self.of:
            if "of" in self.model_fields_set:
                raise ValueError("llm is given, but of does not contain llm")
            self.of["llm"] = 1.0
        if self.filters.judge is not None and self.llm is None:
            raise ValueError("filters.judge needs llm")
        return self
