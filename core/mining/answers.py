"""Which documents answer a query: none of them may be its negative."""

from collections import defaultdict
from collections.abc import Callable

import numpy as np

from core.data.splits import neighbours
from core.mining.gather import Gathered
from core.mining.pool import Pool
from core.spec.filters import Filters


def answers_of(
    filters: Filters, gathered: Gathered, alike: "Alike", check_stop: Callable[[], None]
) -> list[set[int]]:
    """For each query the documents that answer it, nearly repeat one that does, or share its group.

    ``alike`` is of the documents.
    """
    answers: list[set[int]] = [set() for _ in range(len(gathered.queries))]
    check_stop()
    groups_of, of_group = defaultdict(list), defaultdict(list)
    for document, group in [] if filters.same_group else gathered.documents.groups().tolist():
        groups_of[document].append(group)
        of_group[group].append(document)
    for (query, positive), own in zip(gathered.pairs.tolist(), gathered.groups.tolist(), strict=True):
        answers[query] |= alike.of(positive)
        # A row that says its group means that one: its text may stand on other pages, too.
        for group in [own] if own >= 0 else groups_of[positive]:
            answers[query].update(of_group[group])
    # What answers a query answers those that ask the same, or nearly.
    asking = Alike(gathered.queries)
    return [
        set().union(*(answers[other] for other in asking.of(query))) for query in range(len(gathered.queries))
    ]


class Alike:
    """Which texts of a pool say the same, or nearly."""

    def __init__(self, pool: Pool) -> None:
        self._first, near = pool.near()
        self._near = neighbours(near)
        self._repeats: dict[int, list[int]] = defaultdict(list)  # of each first one
        for number in np.flatnonzero(self._first != np.arange(len(self._first))).tolist():
            self._repeats[int(self._first[number])].append(number)
        firsts = {*self._near, *self._repeats}
        repeated = [text for texts in self._repeats.values() for text in texts]
        self._having = np.array([*firsts, *repeated], np.int64)  # texts that have such

    def of(self, number: int) -> set[int]:
        """The text, those that say the same, and those that nearly do."""
        first = int(self._first[number])
        firsts = (first, *self._near.get(first, ()))
        return set(firsts).union(*(self._repeats.get(text, ()) for text in firsts))

    def repeats(self, documents: np.ndarray) -> np.ndarray:
        """Which of these texts says the same as one before it, or nearly. [texts] -> [texts]"""
        found = np.zeros(len(documents), bool)
        able = np.flatnonzero(np.isin(documents, self._having))
        if len(able) > 1:
            said: set[int] = set()
            for place in able.tolist():
                number = int(documents[place])
                found[place] = number in said
                if not found[place]:
                    said |= self.of(number)
        return found
