"""Cross-encoders: one model reads query and document together and scores them (sentence-transformers)."""

from core.families.cross_encoder.model import load_model
from core.families.cross_encoder.scorer import Score, make_score

__all__ = ["Score", "load_model", "make_score"]
