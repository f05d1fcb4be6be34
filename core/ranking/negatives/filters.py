"""Which of a query's nearest documents may be its negatives. Pure arithmetic, one query after the other.

False negatives are the risk: unfiltered hard negatives can make a model worse (RocketQA, Qu et al. 2021,
arXiv 2010.08191). Positive-aware filtering after NV-Retriever (Moreira et al. 2024, arXiv 2407.15831).
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from core.spec.parts.filters import Bar, RankFilters


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
    answers. ``by_rank`` marks those that only their rank allows (`core.spec.parts.filters.Fallback`)."""

    documents: np.ndarray
    scores: np.ndarray
    ranks: np.ndarray
    by_rank: np.ndarray


MOST_ANSWERS = 1000
"""Of a query, for which a search goes deeper: a page of boilerplate may have ten thousands of repetitions."""


def depth_beyond_answers(asked: RankFilters, most_answers: int, corpus: int) -> int:
    """How many of ``corpus`` documents a search brings of each query: answers stand among the nearest, and
    count for no rank. ``most_answers``: the largest number of answers of any query."""
    return max(1, min(corpus, asked.range_max + min(most_answers, MOST_ANSWERS)))


TOO_NEAR = "too near the positive"
"""The name of the bar among the filters that remove candidates."""


def filter_candidates(
    documents: np.ndarray,
    scores: np.ndarray,
    is_answer: np.ndarray,
    positive_scores: Iterable[float],
    asked: RankFilters,
    removed: Counter[str],
    *,
    corpus: int | None = None,
) -> Candidates:
    """Takes out answers and what the filters forbid, and counts in ``removed`` which of them did it.

    documents, scores and ``is_answer`` [candidates], nearest first, -1 where there are no more.
    ``positive_scores`` are those of all of the query's positives. With ``corpus``, the number of documents
    that were searched, candidates above the bar stay where ``asked.fallback`` allows their rank.
    """
    there = documents >= 0
    free = there & ~is_answer
    ranks = np.cumsum(free) - 1
    # Those behind the last rank stand in nobody's way.
    removed["answers"] += int((there & is_answer & (ranks + 1 < asked.range_max)).sum())
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
    lowest = min(positive_scores)
    above = scores > bar_of(asked, lowest)
    by_rank = np.zeros(len(documents), bool)
    if corpus is not None and asked.fallback is not None:
        by_rank = above & _allowed_by_rank(ranks, scores, kept, lowest, asked, corpus)
        if asked.max_score is not None:
            by_rank &= scores <= asked.max_score
    take_out(TOO_NEAR, above & ~by_rank)
    return Candidates(documents[kept], scores[kept], ranks[kept], by_rank[kept])


def _allowed_by_rank(
    ranks: np.ndarray,
    scores: np.ndarray,
    kept: np.ndarray,
    positive: float,
    asked: RankFilters,
    corpus: int,
) -> np.ndarray:
    """Which of the candidates that are ``kept`` so far their rank allows. [candidates]"""
    assert asked.fallback is not None
    deep = kept & (ranks >= max(asked.range_min, min(asked.fallback.range_min, corpus // 10)))
    below = deep & (scores < positive)
    if below.any():
        return below
    # The positive scores below all of them: then depth is the only reason to trust a candidate.
    return deep & (ranks >= (asked.range_min + min(asked.range_max, corpus)) // 2)


def in_turn(
    candidates: Candidates, sampling: str, seed: tuple[int, ...], preferred: np.ndarray | None = None
) -> np.ndarray:
    """Places of all candidates in the order in which they are asked to be negatives.

    The nearest first, or as the seed draws them; ``preferred`` [candidates] ones before all others, and
    those that only their rank allows behind all others.
    """
    size = len(candidates.documents)
    order = np.arange(size) if sampling == "top" else np.random.default_rng(seed).permutation(size)
    last = candidates.by_rank.astype(np.int8) * 2
    if preferred is not None:
        last = last + ~preferred
    return order[np.argsort(last[order], kind="stable")]
