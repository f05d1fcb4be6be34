"""Loading and saving late-interaction models, with float32 weights."""

from functools import partial
from pathlib import Path
from typing import Any

from core.engine.models.loading import (
    context_length,
    keep_attention_window,
    keep_prompts,
    load,
    made_for_scores,
)
from core.errors import BadModel, BadSpec
from core.families.late_interaction.colbert import ColBERT, read_colbert
from core.runtime.context import RunContext
from core.spec.train import TrainSpec


def load_model(context: RunContext, reference: str, device: str, max_length: int | None = None) -> ColBERT:
    """The model that ``reference`` names; documents are cut after ``max_length``. Raises `BadModel`."""
    model = load(read_colbert, context, reference, device)
    if not model.trained:
        raise BadModel(
            f"{reference} is no late-interaction model: its tokens' vectors have no trained projection, its "
            "scores would be random"
        )
    longest = context_length(model)
    model.query_length = min(model.query_length, longest)
    model.document_length = min(model.document_length, longest, max_length or longest)
    return model.eval()


def load_for_training(context: RunContext, spec: TrainSpec, device: str) -> ColBERT:
    """A late-interaction model, or an encoder, which gets a projection, [Q] and [D]. Raises `BadModel`."""
    asked = spec.late_interaction
    options: dict[str, Any] = {
        "embedding_size": asked.embedding_size,
        "do_query_expansion": asked.query_expansion,
        "attend_to_expansion_tokens": asked.attend_to_expansion,
        "skiplist_words": asked.skiplist,
    }
    known = {name: value for name, value in options.items() if value is not None}
    model = load(partial(read_colbert, **known), context, spec.base_model, device)
    keep_prompts(model, spec.prompts)
    longest = context_length(model)
    if model.trained:
        if asked.embedding_size not in (None, trained_size := model[-1].out_features):
            raise BadSpec(
                f"late_interaction.embedding_size is {asked.embedding_size}, but {spec.base_model} has a "
                f"trained projection to {trained_size} dimensions: another one after it would be random"
            )
        model.query_length = min(model.query_length, longest)
        model.document_length = min(model.document_length, longest)
        return model
    if made_for_scores(model[0].auto_model.config):
        context.notice(
            f"{spec.base_model} was made to score or classify texts: its head is left out.", "warning"
        )
    context.notice(
        f"{spec.base_model} is no late-interaction model yet: it gets a new projection to "
        f"{model[-1].out_features} dimensions, which must be trained."
    )
    model.query_length = model.document_length = longest  # lengths auto: as the data are
    model.new_words = [
        number for number in (model.query_prefix_id, model.document_prefix_id) if number is not None
    ]
    return model


def save_model(model: ColBERT, folder: Path) -> None:
    """A folder that `pylate.models.ColBERT(folder)` loads."""
    model.save_pretrained(str(folder))
    keep_attention_window(model, folder)
