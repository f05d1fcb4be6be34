"""Late interaction: one vector a token, compared by MaxSim (ColBERT, Khattab and Zaharia 2020, arXiv
2004.12832; PyLate)."""

from core.families.late_interaction.evaluator import (
    EncodeTokens,
    Ranker,
    make_encode,
    make_rank,
    make_ranker,
    make_score,
)
from core.families.late_interaction.maxsim import Ragged, maxsim, score_all, score_pairs
from core.families.late_interaction.model import load_for_training, load_model, save_model
from core.families.late_interaction.objective import Objective, make_forward, make_objective
from core.families.late_interaction.reader import Reader, make_reader, saved_lengths, set_lengths

__all__ = [
    "EncodeTokens",
    "Objective",
    "Ragged",
    "Ranker",
    "Reader",
    "load_for_training",
    "load_model",
    "make_encode",
    "make_forward",
    "make_objective",
    "make_rank",
    "make_ranker",
    "make_reader",
    "make_score",
    "maxsim",
    "save_model",
    "saved_lengths",
    "score_all",
    "score_pairs",
    "set_lengths",
]
