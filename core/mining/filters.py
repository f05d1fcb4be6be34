"""Which of a query's nearest documents may be its negatives. Pure arithmetic, one query after the other.

False negatives are the risk: unfiltered hard negatives can make a model worse (RocketQA, Qu et al. 2021,
arXiv 2010.08191). Positive-aware filtering after NV-Retriever (Moreira et al. 2024, arXiv 2407.15831).
"""

from collections import Counter
from collections.abc import Set
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Limits:
    """What a candidate must keep to. None: no limit.

    Ranks count from 0 among the documents that are no answers, nearest first. ``relative_margin`` m: the
    score is at most positive - m * |positive|; ``positive_aware`` p: at most positive - (1 - p) * |positive|.
    Both lower the bar for negative scores, too.
    """

    range_min: int = 0
    range_max: int | None = None
    min_score: float | None = None
    max_score: float | None = None
    absolute_margin: float | None = None
    relative_margin: float | None = None
    positive_aware: float | None = 0.95

    def bar(self, positive: float) -> float:
        """The highest score of a candidate beside a positive of this score."""
        bars = [np.inf]
        if self.max_score is not None:
            bars.append(self.max_score)
        if self.absolute_margin is not None:
            bars.append(positive - self.absolute_margin)
        if self.relative_margin is not None:
            bars.append(positive - self.relative_margin * abs(positive))
        if self.positive_aware is not None:
            bars.append(positive - (1 - self.positive_aware) * abs(positive))
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
    answers: Set[int],
    positive_scores: list[float],
    limits: Limits,
    removed: Counter[str],
) -> Candidates:
    """Takes out answers and what the limits forbid, and counts in ``removed`` which of them did it.

    documents and scores [candidates], nearest first, -1 where there are no more. ``positive_scores`` are
    those of all of the query's positives: the bar is the lowest of theirs, so that no negative is above what
    is said of any.
    """
    there = documents >= 0
    is_answer = np.isin(documents, np.fromiter(answers, np.int64, len(answers)))
    free = there & ~is_answer
    removed["answers"] += int((there & is_answer).sum())
    ranks = np.cumsum(free) - 1
    kept = free.copy()
    bar = min((limits.bar(score) for score in positive_scores), default=limits.bar(np.inf))

    def take_out(name: str, bad: np.ndarray) -> None:
        nonlocal kept
        removed[name] += int((kept & bad).sum())
        kept &= ~bad

    take_out("range_min", ranks < limits.range_min)
    if limits.range_max is not None:
        take_out("range_max", ranks >= limits.range_max)
    if limits.min_score is not None:
        take_out("min_score", scores < limits.min_score)
    take_out("too near the positive", scores > bar)
    return Candidates(documents[kept], scores[kept], ranks[kept])


def choose(candidates: Candidates, count: int, sampling: str, seed: tuple[int, int]) -> np.ndarray:
    """Places among the candidates of the ``count`` negatives: the nearest, or some drawn with the seed."""
    size = len(candidates.documents)
    if sampling == "top" or size <= count:
        return np.arange(min(count, size))
    return np.sort(np.random.default_rng(seed).choice(size, count, replace=False))
