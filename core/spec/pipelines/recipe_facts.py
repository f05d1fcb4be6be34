"""What a recipe is given, what it knows, and what it makes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from core.errors import InvalidRequest, Problem
from core.spec.job import JobName
from core.spec.parts.base import Lenient, Strict
from core.spec.parts.models import ModelOrWords
from core.spec.parts.options import MaxLength, Promote, RejectShare, Seed
from core.spec.parts.queries import LanguageModel
from core.spec.parts.reference_places import ReferencePlace
from core.spec.parts.refs import DatasetReference, ModelReference

RecipeName = Literal["documents", "pairs", "gpl", "reranker", "late_interaction"]

Stages = dict[str, dict[str, Any]]


class RecipeInputs(Strict):
    """What a recipe is given."""

    REFERENCES: ClassVar = (
        *(ReferencePlace(name, "dataset") for name in ("data", "test", "queries")),
        *(ReferencePlace(name, "model") for name in ("base_model", "cross_encoder", "retriever")),
    )

    data: DatasetReference = Field(
        description="Documents (a folder or an upload of Markdown, reStructuredText, ...), or rows with "
        "query and positive."
    )
    base_model: ModelReference | None = Field(
        None, description="Default: a small model of the recipe's family."
    )
    name: JobName | None = Field(None, description="Name of the trained model and of the other outputs.")
    test: DatasetReference | None = Field(
        None,
        description="A retrieval set of your own to measure on. Default: a part of the data that is not "
        "trained on.",
    )
    queries: DatasetReference | None = Field(
        None,
        description="Documents only: queries that people have asked, with the document that answered each "
        "(search logs): rows of query and document. They judge, instead of a part of the made queries.",
    )
    llm: LanguageModel | None = Field(
        None,
        description="Documents only: a language model that writes queries, as queries.llm of a prepare job.",
    )
    cross_encoder: ModelReference = Field(
        "cross-encoder/ms-marco-MiniLM-L6-v2",
        description="gpl only: the teacher, which scores each query's documents.",
    )
    promote: Promote | None = Field(
        None,
        description="Publish the trained model under the name, as NAME@current, only if it is better than "
        "the baseline (if_better) or not worse (if_not_worse). The baseline is NAME@current, if there is "
        "one.",
    )
    retriever: ModelOrWords = Field(
        "bm25", description="reranker only: finds the candidates, for negatives and for the evaluation."
    )
    max_length: MaxLength | None = Field(
        None,
        description="Longest document in tokens, in all stages: less is faster. Default: what the base model "
        "reads.",
    )
    max_reject_share: RejectShare | None = Field(
        None, description="Share of files or rows that may be unreadable. Default: that of each kind of job."
    )
    seed: Seed = 42

    def promoting(self, promote: Promote | None) -> "RecipeInputs":
        """With what the pipeline says of promotion, where the inputs say nothing. Raises `InvalidRequest`."""
        if promote is None or self.promote is not None:
            return self
        if self.name is None:
            raise refusal("name", "promote needs a name, of which the model becomes a version")
        return self.model_copy(update={"promote": promote})

    @model_validator(mode="after")
    def _one_judge(self) -> "RecipeInputs":
        if self.test is not None and self.queries is not None:
            raise ValueError("test and queries exclude each other: both are what is measured on")
        return self

    @model_validator(mode="after")
    def _named(self) -> "RecipeInputs":
        if self.promote is not None and self.name is None:
            raise ValueError("promote needs a name, of which the model becomes a version")
        return self


class RecipeChoice(Lenient):
    """A value that a recipe has chosen."""

    stage: str
    field: str
    value: Any
    why: str


@dataclass(frozen=True)
class DataFacts:
    """What is known of the data before it is prepared.

    ``count``: documents or rows; None: unknown. ``characters``: mean length of a document. ``queries``: about
    how many can be made of all documents; None: unknown. ``splits``: rows by split, of data that is split
    already.
    """

    kind: Literal["documents", "rows"]
    count: int | None = None
    characters: float = 0
    splits: Mapping[str, int] = field(default_factory=dict)
    queries: int | None = None
    judged: bool = False  # queries with judgments on a corpus, which a prepare job leaves as they are

    @property
    def is_split(self) -> bool:
        """Whether there is something to train on, and something else to measure on."""
        return {"train", "test"} <= set(self.splits)


@dataclass(frozen=True)
class Surroundings:
    """Of the base model and the workers. ``tokens``: the longest text that the model reads. ``current``:
    whether a version of the name was promoted before."""

    tokens: int = 256
    device: Literal["cuda", "cpu"] = "cpu"
    current: bool = False


@dataclass
class Expanded:
    """The stages that a recipe stands for, and why they are as they are.

    ``pairs``: about how many are trained on. ``negatives``: of a row. ``characters``: about those of a
    document.
    """

    stages: Stages = field(default_factory=dict)
    choices: list[RecipeChoice] = field(default_factory=list)
    pairs: int = 0
    negatives: int = 0
    characters: float = 1000.0

    def as_dict(self, name: str, inputs: Strict) -> dict[str, Any]:
        """What a pipeline keeps of the recipe that made it."""
        choices = [choice.model_dump(mode="json") for choice in self.choices]
        return {"name": name, "inputs": inputs.model_dump(mode="json"), "choices": choices}

    def choose(self, stage: str, path: str, value: Any, why: str) -> Any:
        """Note a choice. Returns the value."""
        self.choices.append(RecipeChoice(stage=stage, field=path, value=value, why=why))
        return value


def refusal(path: str, message: str) -> InvalidRequest:
    return InvalidRequest(message, [Problem(f"inputs.{path}", message)])
