"""Bi-encoders: one vector a text, compared by cosine or dot product (sentence-transformers)."""

from core.engine.models.loading import context_length
from core.families.dense.evaluator import Embed, make_embed, make_encode, make_rank, make_score
from core.families.dense.model import dimension_of, load_for_training, load_model, save_model
from core.families.dense.objective import Objective, make_forward, make_objective, similarities
from core.families.dense.reader import Reader, make_reader, saved_lengths, set_lengths

__all__ = [
    "Embed",
    "Objective",
    "Reader",
    "context_length",
    "dimension_of",
    "load_for_training",
    "load_model",
    "make_embed",
    "make_encode",
    "make_forward",
    "make_objective",
    "make_rank",
    "make_reader",
    "make_score",
    "save_model",
    "saved_lengths",
    "set_lengths",
    "similarities",
]
