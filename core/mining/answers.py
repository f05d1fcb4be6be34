"""Which documents answer a query: none of them may be its negative."""

from collections import defaultdict
from collections.abc import Callable

import numpy as np

from core.data.splits import neighbours
from core.mining.gather import Gathered
from core.mining.pool import Pool
from core.spec.filters import Filters


def answers_of(filters: Filters, gathered: Gathered, check_stop: Callable[[], None]) -> list[set[int]]:
    """For each query the documents that answer it, nearly repeat one that does, or share its group."""
    answers: list[set[int]] = [set() for _ in range(len(gathered.queries))]
    alike = _Alike(gathered.documents)
    check_stop()
    of_group: dict[int, list[int]] = defaultdict(list)
    groups = gathered.documents.labels("group")
    if not filters.same_group:
        for number, group in enumerate(groups.tolist()):
            if group >= 0:
                of_group[group].append(number)
    for query, positive in gathered.pairs.tolist():
        answers[query] |= alike.of(positive)
        if not filters.same_group and groups[positive] >= 0:
            answers[query].update(of_group[int(groups[positive])])
    # What answers a query answers those that ask the same, or nearly.
    alike = _Alike(gathered.queries)
    return [
        set().union(*(answers[other] for other in alike.of(query))) for query in range(len(gathered.queries))
    ]


class _Alike:
    """Which texts of a pool say the same, or nearly."""

    def __init__(self, pool: Pool) -> None:
        self._first, near = pool.near()
        self._near = neighbours(near)
        self._repeats: dict[int, list[int]] = defaultdict(list)  # of each first one
        for number in np.flatnonzero(self._first != np.arange(len(self._first))).tolist():
            self._repeats[int(self._first[number])].append(number)

    def of(self, number: int) -> set[int]:
        """The text, those that say the same, and those that nearly do."""
        first = int(self._first[number])
        firsts = (first, *self._near.get(first, ()))
        return set(firsts).union(*(self._repeats.get(text, ()) for text in firsts))
