"""Filters that remove most candidates: how a job notices, and what it says.

A bar such as ``positive_aware`` compares raw scores. Where all of a model's scores lie close together, as
those of an untrained or an anisotropic encoder do (Ethayarajh 2019, arXiv 1909.00512), it removes every
candidate.
"""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from core.ranking.negatives.filters import TOO_NEAR
from core.spec.parts.filters import RankFilters

REPEATS = "repeats another"
CHECKED = "cross-encoder"

_ADVICE = {
    "answers": "Those are positives of the query, what nearly repeats them, and documents of their groups: "
    "same_group: true allows the last.",
    "min_score": "Lower min_score.",
    REPEATS: "They repeat other candidates: raise near_duplicates.threshold, or add documents to the corpus.",
    CHECKED: "The cross-encoder takes them for answers: check that it fits the data, or raise its bar.",
}
_ORDER = ("answers", "min_score", TOO_NEAR, REPEATS)


@dataclass
class Tally:
    """Candidates within the ranks: how many each filter has removed, and how many are left after all."""

    removed: Counter[str] = field(default_factory=Counter)
    left: int = 0
    checked: int = 0  # those that a cross-encoder has scored

    def without_repeats(self, turn: np.ndarray, repeats: np.ndarray) -> np.ndarray:
        """The places of ``turn`` that repeat none before them. ``repeats`` [places] marks those that do."""
        self.removed[REPEATS] += int(repeats.sum())
        self.left += int((~repeats).sum())
        return turn[~repeats]

    def share(self, name: str) -> float:
        """The share that a filter removes of the candidates that reach it."""
        if name == CHECKED:
            reached = self.checked
        else:
            reached = self.left + sum(self.removed[other] for other in _ORDER[_ORDER.index(name) :])
        return self.removed[name] / reached if reached else 0.0

    def starved(self, asked: RankFilters) -> bool:
        """Whether there is a fallback and it applies: the bar removes more than the stated share."""
        return asked.fallback is not None and self.share(TOO_NEAR) > asked.max_filtered_share

    def warnings(
        self, asked: RankFilters, positives: np.ndarray, candidates: np.ndarray, by_rank: int
    ) -> list[str]:
        """One sentence for each filter that removes more than the stated share.

        ``positives`` and ``candidates`` are scores of the model that has searched; ``by_rank`` queries have
        negatives by the fallback.
        """
        found = []
        for name in (*_ORDER, CHECKED):
            share = self.share(name)
            if share <= asked.max_filtered_share:
                continue
            if name != TOO_NEAR:
                found.append(f"Filter {name} removes {share:.0%} of the candidates. {_ADVICE[name]}")
                continue
            sentence = (
                f"The bar below the positive ({describe_bar(asked)}) removes {share:.0%} of the candidates: "
                f"positives score {spread(positives)}, candidates {spread(candidates)}. "
            )
            if by_rank:
                sentence += f"{by_rank} queries have negatives by rank instead, which no score has checked. "
            if asked.max_score is not None:
                sentence += "max_score holds for every candidate: raise it above the candidates' scores. "
            found.append(
                sentence
                + "Set positive_aware and the margins to null with a range_min of 10 or more, mine with "
                "another model, or add filters.cross_encoder (mine jobs)."
            )
        return found


def describe_bar(asked: RankFilters) -> str:
    """The settings that make the bar."""
    names = ("max_score", "absolute_margin", "relative_margin", "positive_aware")
    given = [(name, getattr(asked, name)) for name in names]
    return ", ".join(f"{name} {value:g}" for name, value in given if value is not None)


def spread(scores: np.ndarray) -> str:
    """The middle nine tenths of some scores, in words."""
    finite = scores[np.isfinite(scores)]
    if not len(finite):
        return "nothing"
    low, middle, high = np.percentile(finite, [5, 50, 95])
    return f"{low:.3f} to {high:.3f} (median {middle:.3f})"
