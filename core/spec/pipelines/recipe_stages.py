"""The stages that recipes share. Each function adds its stage, and notes what it has chosen and why."""

import math
from dataclasses import dataclass, field
from typing import Any

from core.spec.pipelines.recipe_facts import DataFacts, Expanded, RecipeInputs, Surroundings, refusal

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

_MADE = "made-queries"
"""Name of a test whose queries are made of the documents: it is a part of every verdict."""

_MOST_BATCH, _USUAL_BATCH = 64, 32
_BATCHES = 10
"""An epoch has at least so many steps."""


@dataclass(frozen=True)
class PreparedPairs:
    """The data after its preparation: about how many pairs are trained on, and how many documents the corpus
    has; where they lie, what is measured on. Without ``dev``, a part of the pairs is held out."""

    pairs: int
    documents: int
    corpus: str
    train: dict[str, Any]
    test: dict[str, Any]
    dev: dict[str, Any] | None


def _as_it_is(made: Expanded, inputs: RecipeInputs, facts: DataFacts) -> PreparedPairs:
    """Data that is split already keeps its splits."""
    dev = next((name for name in ("dev", "validation", "val") if name in facts.splits), None)
    listed = ", ".join(f"{name} {rows:,}" for name, rows in facts.splits.items())
    made.choose("train", "dataset.split", "train", f"The data has splits of its own: {listed}.")
    return PreparedPairs(
        facts.splits["train"],
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
    """What is measured on, if it is not a part of the data."""
    if inputs.queries:
        return {"ref": "stage:judged/dataset", "split": "test", "name": "real-queries"}
    return {"ref": inputs.test, "name": "test"} if inputs.test else None


def _judge_by_people(made: Expanded, inputs: RecipeInputs, chunking: dict[str, int]) -> None:
    """The stage that puts queries of people beside the passages which answer them."""
    made.stages["judged"] = {
        "kind": "prepare",
        "source": inputs.data,
        "task": "retrieval",
        "chunking": chunking,
        "queries": {"real": inputs.queries},
        "seed": inputs.seed,
    }
    made.choose(
        "judged",
        "queries.real",
        inputs.queries,
        "Queries that people have asked judge; what is made of the documents only trains.",
    )


def prepare_data(
    made: Expanded, inputs: RecipeInputs, facts: DataFacts, around: Surroundings
) -> PreparedPairs:
    """The stage that makes pairs, a corpus, and a split that does not leak."""
    if facts.kind != "documents" and (inputs.llm or inputs.queries):
        raise refusal(
            "llm" if inputs.llm else "queries", f"{inputs.data} holds rows, which have queries of their own"
        )
    if facts.is_split or (facts.judged and inputs.test and "train" in facts.splits):
        return _as_it_is(made, inputs, facts)
    listed = ", ".join(facts.splits) or "none"
    if facts.judged:
        raise refusal(
            "data", f"{inputs.data} is a judged set: it must have the splits train and test, and has {listed}"
        )
    if len(facts.splits) > 1 and "train" not in facts.splits:
        raise refusal("data", f"{inputs.data} has no split train; it has {listed}")
    stage: dict[str, Any] = {
        "kind": "prepare",
        "source": inputs.data,
        "task": "retrieval",
        "seed": inputs.seed,
    }
    made.characters = facts.characters or made.characters
    if facts.count is not None and facts.kind == "rows" and facts.count < _FEWEST:
        raise refusal("data", f"{inputs.data} has {facts.count} rows: at least {_FEWEST} are needed")
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
        if inputs.llm is not None:
            stage["queries"] = {"llm": inputs.llm.model_dump(mode="json", exclude_unset=True)}
        if inputs.queries is not None:
            _judge_by_people(made, inputs, stage["chunking"])
            stage["depends_on"] = ["stage:judged"]  # a mistake in the queries is found before anything else
        made.characters = (least + most) / 2
        passages = max(count, round(count * facts.characters / made.characters))
        # Where nothing else is known: a query for each section, and a passage is a section or a part of one.
        pairs = facts.queries or max(count, round(count * facts.characters / max(_SECTION, made.characters)))
        if inputs.llm is not None:
            pairs += inputs.llm.per_passage * min(inputs.llm.sample or passages, passages)
    by = "auto" if facts.kind == "documents" else "text"
    size = (
        f"About {pairs:,} pairs"
        if facts.count is not None
        else f"The size is not known: as for {pairs:,} pairs"
    )
    dev = _share(pairs, 0.01, *_DEV_QUERIES, most=0.1)
    test = 0.0
    if inputs.test is None and inputs.queries is None:
        test = _share(pairs, 0.02, *_TEST_QUERIES, most=0.3)
        why = (
            f"{size}: a test of about {round(test * pairs):,} queries. Rows that share a text, or nearly "
            "share it, stay in one split, so nothing that is tested was trained on"
            + ("; where possible, all passages of a document do." if by == "auto" else ".")
        )
        if facts.kind == "documents":
            why += (
                " Queries that were made of the documents are easier than those of people, and flatter a "
                "model that was trained on such: inputs.queries takes real ones."
            )
    else:
        asked = inputs.test or inputs.queries
        why = f"The test is {asked}; a part of the data only decides when to stop."
    stage["split"] = {"dev": dev, "test": test, "by": by}
    made.choose("prepare", "split", stage["split"], why)
    made.stages["prepare"] = stage
    whole = "stage:prepare/dataset"
    return PreparedPairs(
        max(1, round(pairs * (1 - test - dev))),
        pairs,
        whole,
        {"ref": whole, "split": "train"},
        _own_test(inputs) or {"ref": whole, "split": "test", "name": _MADE if by == "auto" else "test"},
        {"ref": whole, "split": "dev", "name": "dev"},
    )


@dataclass(frozen=True)
class TrainingPlan:
    """How a recipe trains. ``dataset``: what on. ``steps``: an epoch has at least so many where a batch is
    larger than usual. ``enough_pairs``: fewer are trained on several times; None:
    the epochs depend on the device alone. ``measuring``: the time for measurements while training, as a share
    of the training's own. ``depth``: of a reranker's candidates. ``fields`` go into the spec as they are."""

    learning_rate: float
    dataset: str | dict[str, Any] = "stage:mine/dataset"
    steps: int = 10
    enough_pairs: int | None = None
    measuring: float = 1.0
    depth: int | None = None
    fields: dict[str, Any] = field(default_factory=dict)


def train_model(
    made: Expanded, inputs: RecipeInputs, data: PreparedPairs, around: Surroundings, plan: TrainingPlan
) -> None:
    """The stage that trains, and stops when the dev split no longer improves."""
    gpu = around.device == "cuda"
    most = min(_MOST_BATCH, max(_USUAL_BATCH, data.pairs // plan.steps))
    batch = 2 ** int(math.log2(min(most, max(8, data.pairs // _BATCHES))))
    made.choose("train", "batch_size", batch, f"About {data.pairs:,} pairs to train on.")
    epochs = _choose_epochs(made, data, batch, gpu=gpu, plan=plan)
    made.pairs = data.pairs
    evaluation = _choose_evaluations(made, data, around, round(data.pairs * epochs), batch, plan)
    stage: dict[str, Any] = {
        "kind": "train",
        "base_model": inputs.base_model,
        "dataset": plan.dataset,
        "batch_size": batch,
        "epochs": epochs,
        "learning_rate": plan.learning_rate,
        **({"evaluation": evaluation} if evaluation else {}),
        "seed": inputs.seed,
        **plan.fields,
    }
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


def _choose_epochs(made: Expanded, data: PreparedPairs, batch: int, *, gpu: bool, plan: TrainingPlan) -> int:
    if plan.enough_pairs is not None:
        epochs = min(_MOST_EPOCHS, max(1, round(plan.enough_pairs / data.pairs)))
        why = f"About {round(data.pairs / batch * epochs):,} steps of {batch} pairs."
        return int(made.choose("train", "epochs", epochs, why))
    epochs = 1 if data.pairs >= 20_000 or not gpu else 3
    why = (
        "One epoch, since the workers have no GPU." if not gpu else f"About {data.pairs:,} pairs to train on."
    )
    return int(made.choose("train", "epochs", epochs, why))


def _choose_evaluations(
    made: Expanded, data: PreparedPairs, around: Surroundings, pairs: int, batch: int, plan: TrainingPlan
) -> dict[str, Any] | None:
    """What is measured while training: before, after, and up to eight times between, as far as there is time.
    Without a GPU that is often not even once."""
    count = _EVALUATIONS
    if around.device != "cuda":
        whole = min(around.tokens, made.characters / _CHARACTERS_PER_TOKEN)
        # A step costs three times a forward pass over its documents; queries are short.
        trained = 3 * pairs * (1 + made.negatives) * min(_CPU_TOKENS, whole)
        read = data.documents if plan.depth is None else _DEV_QUERIES[0] * plan.depth
        before_and_after = 3 if "merge" in plan.fields else 2
        affordable = int(plan.measuring * trained / (max(1, read) * whole))
        count = min(count, affordable - before_and_after)
    if count < 1:
        split = made.stages.get("prepare", {}).get("split")
        if split is not None and split["test"]:  # a set without any split would be a test as a whole
            split["dev"] = 0
        made.choose(
            "train",
            "evaluation",
            None,
            f"The workers have no GPU, and each measurement encodes about {read:,} texts: nothing is "
            "measured while training. Base and trained model are compared afterwards.",
        )
        return None
    steps = math.ceil(pairs / batch)
    often = "once" if count == 1 else f"{count} times"
    every = made.choose(
        "train",
        "evaluation.every_steps",
        max(5, math.ceil(steps / (count + 1))),
        f"About {steps:,} steps: dev is measured about {often} between start and end, and the best "
        "weights are kept.",
    )
    return {
        **({"datasets": [data.dev]} if data.dev else {"holdout": 0.05}),
        "every_steps": every,
        "early_stopping": {"metric": "ndcg@10", "patience": 3},
    }


_EVALUATIONS = 8
_MOST_EPOCHS = 5
_CPU_TOKENS = 128


def mine_negatives(
    made: Expanded, inputs: RecipeInputs, data: PreparedPairs, around: Surroundings, **fields: Any
) -> None:
    """The stage that finds hard negatives."""
    negatives = 4 if around.device == "cuda" else 1
    made.choose(
        "mine",
        "num_negatives",
        negatives,
        "Each negative is encoded in every epoch: "
        + ("four, since a worker has a GPU." if negatives > 1 else "one, since the workers have no GPU."),
    )
    made.negatives = negatives
    made.stages["mine"] = {
        "kind": "mine",
        "dataset": data.train,
        "num_negatives": negatives,
        "seed": inputs.seed,
        **fields,
    }


def mine_for_teacher(
    made: Expanded, inputs: RecipeInputs, data: PreparedPairs, around: Surroundings, **fields: Any
) -> None:
    """Two stages that find negatives by words and by vectors; the second scores all by the cross-encoder."""
    negatives = 4 if around.device == "cuda" else 2
    unfiltered = {"range_max": _GPL_DEPTH, "positive_aware": None}
    common = {"kind": "mine", "num_negatives": negatives, "sampling": "random", "seed": inputs.seed}
    made.negatives = 2 * negatives
    made.stages["mine_words"] = {
        **common,
        "dataset": data.train,
        "model": "bm25",
        "keep_own": "never",
        "filters": unfiltered,
    }
    teacher = {"model": inputs.cross_encoder, "positive_aware": None, "keep_scores": True}
    made.stages["mine"] = {
        **common,
        "dataset": "stage:mine_words/dataset",
        "model": inputs.base_model,
        "keep_own": "always",
        "filters": {**unfiltered, "cross_encoder": teacher},
        **fields,
    }
    made.choose(
        "mine",
        "filters.cross_encoder.keep_scores",
        True,
        f"GPL: negatives at random from the first {_GPL_DEPTH} of two retrievers, with no limit to their "
        "scores; the teacher's scores tell the model which of them are answers after all.",
    )
    made.choose(
        "mine",
        "num_negatives",
        negatives,
        f"{2 * negatives} negatives for each query, half of each retriever.",
    )


_GPL_DEPTH = 50


def measure_base(made: Expanded, inputs: RecipeInputs, data: PreparedPairs, **fields: Any) -> None:
    """The stage that measures the base model."""
    base = {"ref": inputs.base_model, "name": "base", **limits_of(inputs)}
    common = {"kind": "evaluate", "datasets": [data.test], "seed": inputs.seed, **fields}
    made.stages["baseline"] = {**common, "models": [base]}


def compare_models(made: Expanded, inputs: RecipeInputs, around: Surroundings) -> None:
    """The stage that measures both models in the same way, with a significance test."""
    common = made.stages["baseline"]
    [base] = common["models"]
    trained = {**base, "ref": "stage:train/model", "name": "trained"}
    models = [trained, base]
    if inputs.promote is not None and around.current:
        models[-1] = {**base, "ref": f"model:{inputs.name}@current", "name": "current"}
        made.choose(
            "compare",
            "models",
            ["trained", "current"],
            f"The trained model must pass against {inputs.name}@current, which may have been trained on rows "
            "of this test where the data have changed much: that makes it harder to pass, never easier.",
        )
    stage = {**common, "models": models, "publish_best": True}
    if inputs.promote is not None:
        stage["promote"] = inputs.promote
    made.stages["compare"] = _named(stage, inputs)
    made.choose(
        "compare",
        "publish_best",
        True,
        "The output compare/model is the trained model if it is significantly better on the test, else the "
        "base model.",
    )


def index_corpus(made: Expanded, inputs: RecipeInputs, facts: DataFacts, data: PreparedPairs) -> None:
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
    stage = {"kind": "embed", "model": "stage:compare/model", "corpus": corpus, **limits_of(inputs)}
    made.stages["index"] = _named(stage, inputs)


def limits_of(inputs: RecipeInputs) -> dict[str, Any]:
    """``max_length`` for a stage that reads texts, where it was given."""
    return {} if inputs.max_length is None else {"max_length": inputs.max_length}


def _named(stage: dict[str, Any], inputs: RecipeInputs) -> dict[str, Any]:
    return {**stage, "name": inputs.name} if inputs.name else stage
