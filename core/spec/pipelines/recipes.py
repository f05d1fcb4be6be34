"""Recipes: a few inputs and facts about the data become stages of a pipeline, each choice with its reason.

A recipe is a plain function. It reads no file: what it must know of the data is in `DataFacts`, of the model
and the workers in `Surroundings`. Its stages can be read, changed and posted as any others.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pydantic import Field

from core.errors import InvalidRequest, Problem
from core.spec.job import JobName
from core.spec.parts.base import Lenient, Strict
from core.spec.parts.models import ModelOrWords
from core.spec.parts.options import MaxLength, Seed
from core.spec.parts.refs import DatasetReference, ModelReference

RecipeName = Literal["documents", "pairs", "reranker", "late_interaction"]

Stages = dict[str, dict[str, Any]]

_CHARACTERS_PER_TOKEN = 4
_TEST_QUERIES = (300, 2000)
_DEV_QUERIES = (100, 500)
"""At least, and at most where a fiftieth of the pairs (a hundredth) would be more."""

_UNKNOWN = 10_000
"""Pairs, where nothing is known of the data."""

_FEWEST = 20
"""Rows: of fewer, nothing is left to train on or to measure with."""

_SECTION = 1000
"""Characters of a section of documentation, about."""

_BATCHES = 10
"""An epoch has at least so many steps."""


class RecipeInputs(Strict):
    """What a recipe is given."""

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
    retriever: ModelOrWords = Field(
        "bm25", description="reranker only: finds the candidates, for negatives and for the evaluation."
    )
    max_length: MaxLength | None = Field(
        None,
        description="Longest document in tokens, in all stages: less is faster. Default: what the base model "
        "reads.",
    )
    seed: Seed = 42


class RecipeChoice(Lenient):
    """A value that a recipe has chosen."""

    stage: str
    field: str
    value: Any
    why: str


@dataclass(frozen=True)
class DataFacts:
    """What is known of the data before it is prepared.

    ``count``: documents or rows; None: unknown. ``characters``: mean length of a document. ``splits``: rows
    by split, of data that is split already.
    """

    kind: Literal["documents", "rows"]
    count: int | None = None
    characters: float = 0
    splits: Mapping[str, int] = field(default_factory=dict)
    judged: bool = False  # queries with judgments on a corpus, which a prepare job leaves as they are

    @property
    def is_split(self) -> bool:
        """Whether there is something to train on, and something else to measure on."""
        return {"train", "test"} <= set(self.splits)


@dataclass(frozen=True)
class Surroundings:
    """Of the base model and the workers. ``tokens``: the longest text that the model reads."""

    tokens: int = 256
    device: Literal["cuda", "cpu"] = "cpu"


@dataclass
class Expanded:
    """The stages that a recipe stands for, and why they are as they are.

    ``pairs``: about how many are trained on. ``characters``: about those of a document.
    """

    stages: Stages = field(default_factory=dict)
    choices: list[RecipeChoice] = field(default_factory=list)
    pairs: int = 0
    characters: float = 1000.0

    def as_dict(self, name: str, inputs: Strict) -> dict[str, Any]:
        """What a pipeline keeps of the recipe that made it."""
        choices = [choice.model_dump(mode="json") for choice in self.choices]
        return {"name": name, "inputs": inputs.model_dump(mode="json"), "choices": choices}

    def choose(self, stage: str, path: str, value: Any, why: str) -> Any:
        """Note a choice. Returns the value."""
        self.choices.append(RecipeChoice(stage=stage, field=path, value=value, why=why))
        return value


@dataclass(frozen=True)
class Recipe:
    """``base_model`` is used where none is given."""

    name: RecipeName
    description: str
    base_model: str
    expand: Callable[[RecipeInputs, DataFacts, Surroundings], Expanded]


def expand(name: RecipeName, inputs: RecipeInputs, facts: DataFacts, around: Surroundings) -> Expanded:
    """The stages of a recipe. Raises `InvalidRequest` for data that it is not for."""
    recipe = RECIPES[name]
    inputs = inputs.model_copy(update={"base_model": inputs.base_model or recipe.base_model})
    if inputs.max_length is not None:
        around = replace(around, tokens=min(around.tokens, inputs.max_length))
    if name != "reranker" and inputs.retriever != "bm25":
        raise _refusal("retriever", "retriever is only for the recipe reranker")
    if name == "documents" and facts.kind != "documents":
        raise _refusal("data", f"{inputs.data} holds rows, not documents: use the recipe pairs")
    if name == "pairs" and facts.kind == "documents":
        raise _refusal("data", f"{inputs.data} holds documents, not rows: use the recipe documents")
    return recipe.expand(inputs, facts, around)


def _refusal(path: str, message: str) -> InvalidRequest:
    return InvalidRequest(message, [Problem(f"inputs.{path}", message)])


# -- the parts that recipes share ------------------------------------------------------------------


@dataclass(frozen=True)
class _Data:
    """The data after its preparation: about how many pairs are trained on, where they lie, what is measured
    on. Without ``dev``, a part of the pairs is held out."""

    pairs: int
    corpus: str
    train: dict[str, Any]
    test: dict[str, Any]
    dev: dict[str, Any] | None


def _as_it_is(made: Expanded, inputs: RecipeInputs, facts: DataFacts) -> _Data:
    """Data that is split already keeps its splits."""
    dev = next((name for name in ("dev", "validation", "val") if name in facts.splits), None)
    listed = ", ".join(f"{name} {rows:,}" for name, rows in facts.splits.items())
    made.choose("train", "dataset.split", "train", f"The data has splits of its own: {listed}.")
    return _Data(
        facts.splits["train"],
        inputs.data,
        {"ref": inputs.data, "split": "train"},
        _own_test(inputs) or {"ref": inputs.data, "split": "test", "name": "test"},
        {"ref": inputs.data, "split": dev, "name": "dev"} if dev else None,
    )


def _share(pairs: int, usual: float, fewest: int, enough: int, *, most: float) -> float:
    """The share of the pairs that gives a sensible number of queries."""
    queries = min(enough, max(fewest, usual * pairs))
    return float(f"{min(most, queries / max(1, pairs)):.3g}")


def _own_test(inputs: RecipeInputs) -> dict[str, Any] | None:
    return {"ref": inputs.test, "name": "test"} if inputs.test else None


def _prepare(made: Expanded, inputs: RecipeInputs, facts: DataFacts, around: Surroundings) -> _Data:
    """The stage that makes pairs, a corpus, and a split that does not leak."""
    if facts.is_split or (facts.judged and inputs.test and "train" in facts.splits):
        return _as_it_is(made, inputs, facts)
    listed = ", ".join(facts.splits) or "none"
    if facts.judged:
        raise _refusal(
            "data", f"{inputs.data} is a judged set: it must have the splits train and test, and has {listed}"
        )
    if len(facts.splits) > 1 and "train" not in facts.splits:
        raise _refusal("data", f"{inputs.data} has no split train; it has {listed}")
    stage: dict[str, Any] = {
        "kind": "prepare",
        "source": inputs.data,
        "task": "retrieval",
        "seed": inputs.seed,
    }
    made.characters = facts.characters or made.characters
    if facts.count is not None and facts.kind == "rows" and facts.count < _FEWEST:
        raise _refusal("data", f"{inputs.data} has {facts.count} rows: at least {_FEWEST} are needed")
    count = _UNKNOWN if facts.count is None else facts.count
    pairs = count
    if facts.kind == "documents":
        most = max(100, min(5000, around.tokens * _CHARACTERS_PER_TOKEN))
        least = max(50, most * 3 // 10)
        made.choose(
            "prepare",
            "chunking.max_characters",
            most,
            f"{'max_length is' if inputs.max_length == around.tokens else 'The base model reads'} "
            f"{around.tokens} tokens, about {most} characters of English: what is longer would be cut.",
        )
        stage["chunking"] = {"min_characters": least, "max_characters": most}
        made.characters = (least + most) / 2
        # Headings become queries: about one for each section, and a passage is a section or a part of one.
        pairs = max(count, round(count * facts.characters / max(_SECTION, (least + most) / 2)))
    by = "auto" if facts.kind == "documents" else "text"
    size = (
        f"About {pairs:,} pairs"
        if facts.count is not None
        else f"The size is not known: as for {pairs:,} pairs"
    )
    dev = _share(pairs, 0.01, *_DEV_QUERIES, most=0.1)
    test = 0.0
    if inputs.test is None:
        test = _share(pairs, 0.02, *_TEST_QUERIES, most=0.3)
        why = (
            f"{size}: a test of about {round(test * pairs):,} queries. Rows that share a text, or nearly "
            "share it, stay in one split, so nothing that is tested was trained on"
            + ("; where possible, all passages of a document do." if by == "auto" else ".")
        )
    else:
        why = f"The test is {inputs.test}; a part of the data only decides when to stop."
    stage["split"] = {"dev": dev, "test": test, "by": by}
    made.choose("prepare", "split", stage["split"], why)
    made.stages["prepare"] = stage
    whole = "stage:prepare/dataset"
    return _Data(
        max(1, round(pairs * (1 - test - dev))),
        whole,
        {"ref": whole, "split": "train"},
        _own_test(inputs) or {"ref": whole, "split": "test", "name": "test"},
        {"ref": whole, "split": "dev", "name": "dev"},
    )


def _train(
    made: Expanded,
    inputs: RecipeInputs,
    data: _Data,
    around: Surroundings,
    *,
    learning_rate: float,
    **fields: Any,
) -> None:
    """The stage that trains on the mined negatives, and stops when the dev split no longer improves."""
    gpu = around.device == "cuda"
    batch = 2 ** int(math.log2(min(64, max(8, data.pairs // _BATCHES))))
    made.choose("train", "batch_size", batch, f"About {data.pairs:,} pairs to train on.")
    epochs = 1 if data.pairs >= 20_000 or not gpu else 3
    made.choose(
        "train",
        "epochs",
        epochs,
        "One epoch, since the workers have no GPU."
        if not gpu
        else f"About {data.pairs:,} pairs to train on.",
    )
    made.pairs = data.pairs
    steps = math.ceil(data.pairs * epochs / batch)
    every = max(5, steps // 8)
    stage: dict[str, Any] = {
        "kind": "train",
        "base_model": inputs.base_model,
        "dataset": "stage:mine/dataset",
        "batch_size": batch,
        "epochs": epochs,
        "learning_rate": learning_rate,
        "evaluation": {
            **({"datasets": [data.dev]} if data.dev else {"holdout": 0.05}),
            "every_steps": every,
            "early_stopping": {"metric": "ndcg@10", "patience": 3},
        },
        "seed": inputs.seed,
        **fields,
    }
    made.choose(
        "train",
        "evaluation.every_steps",
        every,
        f"About {steps:,} steps: dev is measured about eight times, and the best weights are kept.",
    )
    if inputs.max_length is not None:
        stage["lengths"] = {"document": inputs.max_length}
    elif not gpu and around.tokens > _CPU_TOKENS:
        stage["lengths"] = {"document": _CPU_TOKENS}
        made.choose(
            "train",
            "lengths.document",
            _CPU_TOKENS,
            "The workers have no GPU: longer documents would take much longer to train on. The saved model "
            "still reads as much as the base model.",
        )
    made.stages["train"] = stage


_CPU_TOKENS = 128


def _mine(made: Expanded, inputs: RecipeInputs, data: _Data, around: Surroundings, **fields: Any) -> None:
    """The stage that finds hard negatives."""
    negatives = 4 if around.device == "cuda" else 1
    made.choose(
        "mine",
        "num_negatives",
        negatives,
        "Each negative is encoded in every epoch: "
        + ("four, since a worker has a GPU." if negatives > 1 else "one, since the workers have no GPU."),
    )
    made.stages["mine"] = {
        "kind": "mine",
        "dataset": data.train,
        "num_negatives": negatives,
        "seed": inputs.seed,
        **fields,
    }


def _measure(made: Expanded, inputs: RecipeInputs, data: _Data, **fields: Any) -> None:
    """The stage that measures the base model."""
    base = {"ref": inputs.base_model, "name": "base", **_cut(inputs)}
    common = {"kind": "evaluate", "datasets": [data.test], "seed": inputs.seed, **fields}
    made.stages["baseline"] = {**common, "models": [base]}


def _compare(made: Expanded, inputs: RecipeInputs) -> None:
    """The stage that measures both models in the same way, with a significance test."""
    common = made.stages["baseline"]
    [base] = common["models"]
    trained = {**base, "ref": "stage:train/model", "name": "trained"}
    stage = {**common, "models": [trained, base], "publish_best": True}
    made.stages["compare"] = _named(stage, inputs)
    made.choose(
        "compare",
        "publish_best",
        True,
        "The output compare/model is the trained model if it is significantly better on the test, else the "
        "base model.",
    )


def _index(made: Expanded, inputs: RecipeInputs, facts: DataFacts, data: _Data) -> None:
    """The stage that encodes the corpus with the better model, to search in it."""
    corpus = data.corpus
    if facts.kind == "documents":
        corpus = "stage:passages/dataset"
        prepare = made.stages["prepare"]
        made.stages["passages"] = {
            "kind": "prepare",
            "source": inputs.data,
            "task": "chunks",
            "chunking": prepare["chunking"],
            "seed": inputs.seed,
        }
        made.choose(
            "passages",
            "task",
            "chunks",
            "The index holds the passages as they are; in the pairs, the words of a query are removed from "
            "its passage.",
        )
    stage = {"kind": "embed", "model": "stage:compare/model", "corpus": corpus, **_cut(inputs)}
    made.stages["index"] = _named(stage, inputs)


def _cut(inputs: RecipeInputs) -> dict[str, Any]:
    return {} if inputs.max_length is None else {"max_length": inputs.max_length}


def _named(stage: dict[str, Any], inputs: RecipeInputs) -> dict[str, Any]:
    return {**stage, "name": inputs.name} if inputs.name else stage


# -- the recipes -----------------------------------------------------------------------------------


def _dense(inputs: RecipeInputs, facts: DataFacts, around: Surroundings) -> Expanded:
    made = Expanded()
    data = _prepare(made, inputs, facts, around)
    _measure(made, inputs, data)
    _mine(made, inputs, data, around, model=inputs.base_model, **_cut(inputs))
    _train(made, inputs, data, around, learning_rate=5e-5)
    _compare(made, inputs)
    _index(made, inputs, facts, data)
    return made


def _late_interaction(inputs: RecipeInputs, facts: DataFacts, around: Surroundings) -> Expanded:
    made = Expanded()
    data = _prepare(made, inputs, facts, around)
    _measure(made, inputs, data)
    _mine(made, inputs, data, around, model="bm25")
    made.choose(
        "mine", "model", "bm25", "Token vectors of a whole corpus are large; words find hard negatives too."
    )
    _train(made, inputs, data, around, family="late_interaction", learning_rate=1e-5)
    _compare(made, inputs)
    _index(made, inputs, facts, data)
    return made


def _reranker(inputs: RecipeInputs, facts: DataFacts, around: Surroundings) -> Expanded:
    made = Expanded()
    data = _prepare(made, inputs, facts, around)
    rerank = {"retriever": inputs.retriever, "depth": 50}
    made.choose("compare", "rerank", rerank, "Both rerankers order the same 50 candidates of the retriever.")
    _measure(made, inputs, data, rerank=rerank)
    _mine(made, inputs, data, around, model=inputs.retriever)
    _train(made, inputs, data, around, family="cross_encoder", learning_rate=2e-5)
    made.stages["train"]["evaluation"]["rerank"] = rerank
    _compare(made, inputs)
    return made


RECIPES: dict[RecipeName, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "documents",
            "From a folder of documents to a better embedding model: queries from headings and descriptions, "
            "hard negatives, training, a comparison with the base model, and an index to search in.",
            "sentence-transformers/all-MiniLM-L6-v2",
            _dense,
        ),
        Recipe(
            "pairs",
            "The same for rows with query and positive.",
            "sentence-transformers/all-MiniLM-L6-v2",
            _dense,
        ),
        Recipe(
            "reranker",
            "A better cross-encoder from documents or rows, compared with the base model on the same "
            "candidates.",
            "cross-encoder/ms-marco-MiniLM-L6-v2",
            _reranker,
        ),
        Recipe(
            "late_interaction",
            "A better late-interaction (ColBERT) model from documents or rows, with a comparison and an "
            "index.",
            "answerdotai/answerai-colbert-small-v1",
            _late_interaction,
        ),
    )
}
