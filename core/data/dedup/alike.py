"""Which of some numbered texts say the same, or nearly."""

from collections import defaultdict
from typing import Protocol

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


class NearTexts(Protocol):
    """Numbered texts that know which of them repeat others."""

    def near(self) -> tuple[np.ndarray, np.ndarray]:
        """As `core.data.dedup.near_duplicates.Sketches.near`."""
        ...


class Alike:
    """Which texts of a pool say the same, or nearly."""

    def __init__(self, texts: NearTexts) -> None:
        self._first, near = texts.near()
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


def neighbours(pairs: np.ndarray) -> dict[int, list[int]]:
    """Of pairs [pairs, 2]: the others of each."""
    found: dict[int, list[int]] = defaultdict(list)
    for one, two in pairs.tolist():
        found[one].append(two)
        found[two].append(one)
    return dict(found)


def connected(one: np.ndarray, two: np.ndarray, size: int) -> np.ndarray:
    """The number of each node's group, where ``one`` and ``two`` [links] are linked, however indirectly.
    [size]"""
    links = coo_array((np.ones(len(one), bool), (one, two)), shape=(size, size))
    return np.asarray(connected_components(links, directed=False)[1], np.int64)
