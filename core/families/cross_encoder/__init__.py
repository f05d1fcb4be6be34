"""Cross-encoders: one model reads query and document together and scores them (sentence-transformers)."""

from core.families.cross_encoder.evaluator import make_rank, make_score
from core.families.cross_encoder.model import load_for_training, load_model, save_model
from core.families.cross_encoder.objective import Objective, make_forward, make_objective
from core.families.cross_encoder.reader import Reader, make_reader, saved_lengths, set_lengths
from core.families.cross_encoder.scorer import score_with
from core.ranking.triplets import Score

__all__ = [
    "Objective",
    "Reader",
    "Score",
    "load_for_training",
    "load_model",
    "make_forward",
    "make_objective",
    "make_rank",
    "make_reader",
    "make_score",
    "save_model",
    "saved_lengths",
    "score_with",
    "set_lengths",
]
