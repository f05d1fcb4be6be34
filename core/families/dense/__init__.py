"""Bi-encoders: one vector a text, compared by cosine or dot product (sentence-transformers)."""

from core.families.dense.collator import PairCollator
from core.families.dense.evaluator import Embed, make_embed, make_encode
from core.families.dense.model import load_model, save_model
from core.families.dense.objective import Objective, similarities
from core.families.loading import context_length

__all__ = [
    "Embed",
    "Objective",
    "PairCollator",
    "context_length",
    "load_model",
    "make_embed",
    "make_encode",
    "save_model",
    "similarities",
]
