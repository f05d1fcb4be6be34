"""Late interaction: one vector a token, compared by MaxSim (ColBERT, Khattab and Zaharia 2020, arXiv
2004.12832; PyLate)."""

from core.families.late_interaction.maxsim import Ragged, score_all, score_pairs
from core.families.late_interaction.model import EncodeTokens, load_model, make_encode

__all__ = ["EncodeTokens", "Ragged", "load_model", "make_encode", "score_all", "score_pairs"]
