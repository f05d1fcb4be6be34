"""Loading late-interaction models, with float32 weights, and texts into their tokens' vectors."""

from collections.abc import Callable
from typing import Literal

import numpy as np
from pylate.models import ColBERT

from core.errors import BadModel
from core.families.late_interaction.maxsim import Ragged
from core.families.loading import context_length, load
from core.run.context import RunContext

_TEXTS = 32

EncodeTokens = Callable[[list[str], Literal["query", "document"]], Ragged]
"""Texts -> the vectors of their tokens, normalised, without those that the model leaves out."""


def load_model(context: RunContext, reference: str, device: str, max_length: int | None = None) -> ColBERT:
    """The model that ``reference`` names; documents are cut after ``max_length``. Raises `BadModel`."""
    model = load(ColBERT, context, reference, device)
    known = getattr(model, "_model_config", None) or {}
    stanford = "HF_ColBERT" in (model[0].auto_model.config.architectures or ())
    if "query_prefix" not in known and not stanford:
        raise BadModel(
            f"{reference} is no late-interaction model: its tokens' vectors have no trained projection, its "
            "scores would be random"
        )
    longest = context_length(model)
    model.query_length = min(model.query_length, longest)
    model.document_length = min(model.document_length, longest, max_length or longest)
    return model.eval()


def make_encode(model: ColBERT, check_stop: Callable[[], None]) -> EncodeTokens:
    """An encoder in the model's own lengths, with its own [Q] and [D], skiplist and query expansion."""

    def encode(texts: list[str], role: Literal["query", "document"]) -> Ragged:
        # Longest first over all texts: those of a batch are of similar length.
        order = sorted(range(len(texts)), key=lambda index: -len(texts[index]))
        found: list[np.ndarray | None] = [None] * len(texts)
        for start in range(0, len(order), _TEXTS):
            check_stop()
            batch = order[start : start + _TEXTS]
            vectors = model.encode(
                [texts[index] for index in batch],
                batch_size=_TEXTS,
                is_query=role == "query",
                show_progress_bar=False,
            )
            for index, of_text in zip(batch, vectors, strict=True):
                found[index] = np.asarray(of_text, np.float32)
        return Ragged.of([of_text for of_text in found if of_text is not None])

    return encode
