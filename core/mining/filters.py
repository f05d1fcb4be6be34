"""Which of a query's nearest documents may be its negatives. Pure arithmetic, one query after the other.

False negatives are the risk: unfiltered hard negatives can make a model worse (RocketQA, Qu et al. 2021,
arXiv 2010.08191). Positive-aware filtering after NV-Retriever (Moreira et al. 2024, arXiv 2407.15831).
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from core.spec.filters import Bar, RankFilters


def bar_of(asked: Bar, positive: float) -> float:
    """The highest score of a negative beside a positive of this score."""
    bars = [np.inf]
    if asked.max_score is not None:
        bars.append(asked.max_score)
    if asked.absolute_margin is not None:
        bars.append(positive - asked.absolute_margin)
    if asked.relative_margin is not None:
        bars.append(positive - asked.relative_margin * abs(positive))
    if asked.positive_aware is not None:
        bars.append(positive - (1 - asked.positive_aware) * abs(positive))
    return float(min(bars))


@dataclass(frozen=True)
class Candidates:
    """What is left for a query, nearest first: document numbers, scores, and ranks among those that are no
    answers."""

    documents: np.ndarray
    scores: np.ndarray
    ranks: np.ndarray


def keep(
    documents: np.ndarray,
    scores: np.ndarray,
    is_answer: np.ndarray,
    positive_scores: Iterable[float],
    asked: RankFilters,
    removed: Counter[str],
) -> Candidates:
    """Takes out answers and what the filters forbid, and counts in ``removed`` which of them did it.

    documents, scores and ``is_answer`` [candidates], nearest first, -1 where there are no more.
    ``positive_scores`` are those of all of the query's positives.
    """
    there = documents >= 0
    free = there & ~is_answer
    removed["answers"] += int((there & is_answer).sum())
    ranks = np.cumsum(free) - 1
    kept = free.copy()

    def take_out(name: str, bad: np.ndarray) -> None:
        nonlocal kept
        removed[name] += int((kept & bad).sum())
        kept &= ~bad

    take_out("range_min", ranks < asked.range_min)
    take_out("range_max", ranks >= asked.range_max)
    if asked.min_score is not None:
        take_out("min_score", scores < asked.min_score)
    # The lowest counts, so that no negative is above what is said of any positive.
    bar = min(bar_of(asked, score) for score in positive_scores)
    take_out("too near the positive", scores > bar)
    return Candidates(documents[kept], scores[kept], ranks[kept])


def in_turn(
    candidates: Candidates, sampling: str, seed: tuple[int, ...], preferred: np.ndarray | None = None
) -> np.ndarray:
    """Places of all candidates in the order in which they are asked to be negatives.

    The nearest first, or as the seed draws them; ``preferred`` [candidates] ones before all others.
    """
    size = len(candidates.documents)
    order = np.arange(size) if sampling == "top" else np.random.default_rng(seed).permutation(size)
    if preferred is not None:
        order = order[np.argsort(~preferred[order], kind="stable")]
    return order
