"""Loading late-interaction models, with float32 weights, and texts into their tokens' vectors."""

from collections.abc import Callable
from typing import Literal

import numpy as np
from pylate.models import ColBERT

from core.families.late_interaction.maxsim import Ragged
from core.families.loading import load
from core.run.context import RunContext

_TEXTS = 32

EncodeTokens = Callable[[list[str], Literal["query", "document"]], Ragged]
"""Texts -> the vectors of their tokens, normalised, without those that the model leaves out."""


def load_model(context: RunContext, reference: str, device: str, max_length: int | None = None) -> ColBERT:
    """The model that ``reference`` names; documents are cut after ``max_length``. Raises `BadModel`."""
    model = load(ColBERT, context, reference, device)
    if max_length is not None:
        model.document_length = min(max_length, model.document_length)
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
