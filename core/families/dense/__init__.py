"""Bi-encoders: one vector a text, compared by cosine or dot product (sentence-transformers)."""

from core.families.dense.collator import PairCollator
from core.families.dense.evaluator import make_encode
from core.families.dense.loss import MultipleNegativesRanking
from core.families.dense.model import context_length, load_model, save_model, weights_sha256

__all__ = [
    "MultipleNegativesRanking",
    "PairCollator",
    "context_length",
    "load_model",
    "make_encode",
    "save_model",
    "weights_sha256",
]
