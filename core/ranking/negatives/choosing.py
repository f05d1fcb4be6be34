"""How candidates become negatives: filters, order, repetitions, and a second pass by rank where scores fail.

Mine jobs and re-mining both choose so; they differ in where candidates come from and who checks them.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import numpy as np

from core.ranking.negatives.filters import Candidates, filter_candidates, in_turn
from core.ranking.negatives.starvation import Tally
from core.spec.parts.filters import RankFilters


class Choose(Protocol):
    """Choose the negatives of some queries anew, and count in ``tally`` what filters removed.

    ``by_rank``: candidates above the bar stay where the fallback allows their rank.
    """

    def __call__(self, queries: Sequence[int], tally: Tally, *, by_rank: bool) -> None: ...


def choose_in_passes(
    choose: Choose, queries: Sequence[int], is_short: Callable[[int], bool], asked: RankFilters
) -> Tally:
    """Choose for all queries. Where the bar by score removed most candidates, those that are short choose
    again, by rank. Returns what the first pass removed."""
    tally = Tally()
    choose(queries, tally, by_rank=False)
    if tally.starved(asked):
        choose([query for query in queries if is_short(query)], Tally(), by_rank=True)
    return tally


def order_candidates(
    documents: np.ndarray,
    scores: np.ndarray,
    is_answer: np.ndarray,
    positive_scores: Iterable[float],
    asked: RankFilters,
    tally: Tally,
    *,
    sampling: str,
    seed: tuple[int, ...],
    prefer: Callable[[Candidates], np.ndarray | None],
    repeats: Callable[[np.ndarray], np.ndarray],
    corpus: int | None,
) -> tuple[Candidates, np.ndarray]:
    """The candidates of one query that the filters leave, and their places in the order of `in_turn`,
    without those that repeat one before them.

    The first five arguments and ``corpus`` are those of `filter_candidates`; ``prefer`` and ``repeats`` take
    what is left [candidates] and documents in order [places], and mark some of them.
    """
    left = filter_candidates(
        documents, scores, is_answer, positive_scores, asked, tally.removed, corpus=corpus
    )
    turn = in_turn(left, sampling, seed, prefer(left))
    return left, tally.without_repeats(turn, repeats(left.documents[turn]))
