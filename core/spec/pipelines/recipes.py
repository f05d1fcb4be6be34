"""Recipes: a few inputs and facts about the data become stages of a pipeline, each choice with its reason.

A recipe is a plain function. It reads no file: what it must know of the data is in `DataFacts`, of the model
and the workers in `Surroundings`. Its stages can be read, changed and posted as any others.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from core.spec.pipelines.recipe_facts import (
    DataFacts,
    Expanded,
    RecipeInputs,
    RecipeName,
    Surroundings,
    refusal,
)
from core.spec.pipelines.recipe_stages import (
    TrainingPlan,
    compare_models,
    index_corpus,
    limits_of,
    measure_base,
    mine_for_teacher,
    mine_negatives,
    prepare_data,
    train_model,
)


@dataclass(frozen=True)
class Recipe:
    """``base_model`` is used where none is given."""

    name: RecipeName
    description: str
    base_model: str
    expand: Callable[[RecipeInputs, DataFacts, Surroundings], Expanded]


def expand(name: RecipeName, inputs: RecipeInputs, facts: DataFacts, around: Surroundings) -> Expanded:
    """The stages of a recipe. Raises `InvalidRequest` for data that it is not for."""
    inputs = with_base_model(name, inputs)
    if inputs.max_length is not None:
        around = replace(around, tokens=min(around.tokens, inputs.max_length))
    if name != "reranker" and inputs.retriever != "bm25":
        raise refusal("retriever", "retriever is only for the recipe reranker")
    if name != "gpl" and "cross_encoder" in inputs.model_fields_set:
        raise refusal("cross_encoder", "cross_encoder is only for the recipe gpl")
    if name == "documents" and facts.kind != "documents":
        raise refusal("data", f"{inputs.data} holds rows, not documents: use the recipe pairs")
    if name == "pairs" and facts.kind == "documents":
        raise refusal("data", f"{inputs.data} holds documents, not rows: use the recipe documents")
    made = RECIPES[name].expand(inputs, facts, around)
    if inputs.max_reject_share is not None:
        for stage in made.stages.values():
            if stage["kind"] in _READING_DATA:
                stage["max_reject_share"] = inputs.max_reject_share
    return made


_READING_DATA = ("prepare", "mine", "train")
"""Kinds of job that can read what the user has given."""


def with_base_model(name: RecipeName, inputs: RecipeInputs) -> RecipeInputs:
    """The inputs with the recipe's base model, where they name none."""
    return inputs.model_copy(update={"base_model": inputs.base_model or RECIPES[name].base_model})


def _dense(inputs: RecipeInputs, facts: DataFacts, around: Surroundings) -> Expanded:
    made = Expanded()
    data = prepare_data(made, inputs, facts, around)
    measure_base(made, inputs, data)
    mine_negatives(made, inputs, data, around, model=inputs.base_model, **limits_of(inputs))
    train_model(made, inputs, data, around, TrainingPlan(5e-5))
    compare_models(made, inputs, around)
    index_corpus(made, inputs, facts, data)
    return made


def _documents(inputs: RecipeInputs, facts: DataFacts, around: Surroundings) -> Expanded:
    """No mined negatives: of passages on one subject many answer a made query (measured: on Cranfield, mined
    negatives made the model worse on real questions). The other passages of the batch are the negatives. Few
    documents are trained on several times at a high rate, and the result is averaged with the base model
    (measured: of rate, batch and average, this has gained most on Cranfield and SciFact together).
    """
    made = Expanded()
    data = prepare_data(made, inputs, facts, around)
    measure_base(made, inputs, data)
    merge = made.choose(
        "train",
        "merge.base_weight",
        0.5,
        "Made queries are narrower than those of people: the average with the base model forgets less.",
    )
    plan = TrainingPlan(
        1e-4,
        dataset=data.train,
        steps=40,  # measured on Cranfield's 1,357 pairs: 32 in a batch gain more than 64, and than 16
        enough_pairs=_DOCUMENT_PAIRS,
        measuring=0.5,  # dev has made queries: they decide little
        fields={"merge": {"base_weight": merge}},
    )
    train_model(made, inputs, data, around, plan)
    compare_models(made, inputs, around)
    index_corpus(made, inputs, facts, data)
    return made


_DOCUMENT_PAIRS = 2500
"""Pairs that are trained on, each time counted."""


def _gpl(inputs: RecipeInputs, facts: DataFacts, around: Surroundings) -> Expanded:
    """Generative pseudo labelling (Wang et al. 2022, arXiv 2112.07577)."""
    made = Expanded()
    data = prepare_data(made, inputs, facts, around)
    measure_base(made, inputs, data)
    mine_for_teacher(made, inputs, data, around, **limits_of(inputs))
    loss = {"name": "margin_mse"}
    train_model(made, inputs, data, around, TrainingPlan(2e-5, fields={"loss": loss}))
    compare_models(made, inputs, around)
    index_corpus(made, inputs, facts, data)
    return made


def _late_interaction(inputs: RecipeInputs, facts: DataFacts, around: Surroundings) -> Expanded:
    made = Expanded()
    data = prepare_data(made, inputs, facts, around)
    measure_base(made, inputs, data)
    mine_negatives(made, inputs, data, around, model="bm25")
    made.choose(
        "mine", "model", "bm25", "Token vectors of a whole corpus are large; words find hard negatives too."
    )
    fields = {"family": "late_interaction"}
    train_model(made, inputs, data, around, TrainingPlan(1e-5, fields=fields))
    compare_models(made, inputs, around)
    index_corpus(made, inputs, facts, data)
    return made


def _reranker(inputs: RecipeInputs, facts: DataFacts, around: Surroundings) -> Expanded:
    made = Expanded()
    data = prepare_data(made, inputs, facts, around)
    rerank = {"retriever": inputs.retriever, "depth": _CANDIDATES}
    made.choose(
        "compare",
        "rerank",
        rerank,
        f"Both rerankers order the same {_CANDIDATES} candidates of the retriever.",
    )
    measure_base(made, inputs, data, rerank=rerank)
    mine_negatives(made, inputs, data, around, model=inputs.retriever)
    plan = TrainingPlan(2e-5, depth=_CANDIDATES, fields={"family": "cross_encoder"})
    train_model(made, inputs, data, around, plan)
    if "evaluation" in made.stages["train"]:
        made.stages["train"]["evaluation"]["rerank"] = rerank
    compare_models(made, inputs, around)
    return made


_CANDIDATES = 50
"""Of the retriever, for each query."""


RECIPES: dict[RecipeName, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "documents",
            "From a folder of documents to a better embedding model: queries made of the documents, "
            "training, a comparison with the base model, and an index to search in.",
            "sentence-transformers/all-MiniLM-L6-v2",
            _documents,
        ),
        Recipe(
            "pairs",
            "The same for rows with query and positive, with mined negatives.",
            "sentence-transformers/all-MiniLM-L6-v2",
            _dense,
        ),
        Recipe(
            "gpl",
            "An embedding model from documents or rows that learns the scores of a cross-encoder (GPL): best "
            "with queries of a language model (llm).",
            "sentence-transformers/all-MiniLM-L6-v2",
            _gpl,
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
