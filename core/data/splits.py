"""Which rows train, and which are kept to evaluate on: nothing that belongs together comes apart."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np


class Components:
    """Rows that are linked by something they share, however indirectly: a forest over row numbers.

    Tarjan 1975; links go to the smaller number, so that the result does not depend on their order.
    """

    def __init__(self) -> None:
        self._parents: list[int] = []
        self._first: dict[bytes, int] = {}  # key -> the first row that had it

    def add(self, keys: Iterable[bytes]) -> None:
        """The next row, and what it must not be parted from."""
        row = len(self._parents)
        self._parents.append(row)
        for key in keys:
            self.link(self._first.setdefault(key, row), row)

    def link(self, one: int, two: int) -> None:
        low, high = sorted((self._root(one), self._root(two)))
        self._parents[high] = low

    def _root(self, row: int) -> int:
        parents = self._parents
        while parents[row] != row:
            parents[row] = parents[parents[row]]
            row = parents[row]
        return row

    def roots(self) -> np.ndarray:
        """The component of every row, as the number of its first one. [rows]"""
        return np.array([self._root(row) for row in range(len(self._parents))], np.int64)


def key_of(kind: str, text: str) -> bytes:
    """A short name for something that rows may share."""
    return hashlib.blake2b(f"{kind}\0{text}".encode(), digest_size=12).digest()


def assign(
    roots: np.ndarray, names: Mapping[int, bytes], shares: Mapping[str, float], seed: int
) -> np.ndarray:
    """The split of every row: an index into ``[*shares, "train"]``. [rows]

    ``roots`` [rows] are components, ``names`` a content-derived name of each. Components come in the order of
    their names' hash under the seed, and each goes to the first split that has room for it: so shares are met
    from below, and which split a row is in does not depend on the order of the rows.
    """
    sizes = Counter(roots.tolist())
    order = sorted(
        sizes, key=lambda root: hashlib.blake2b(names[root], key=seed.to_bytes(8, "little")).digest()
    )
    room = [share * len(roots) for share in shares.values()]
    split_of = {}
    for root in order:
        split_of[root] = next(
            (index for index, left in enumerate(room) if sizes[root] <= left + 0.5), len(room)
        )
        if split_of[root] < len(room):
            room[split_of[root]] -= sizes[root]
    return np.array([split_of[root] for root in roots.tolist()], np.int8)


def smallest_names(roots: np.ndarray, names: Sequence[bytes]) -> dict[int, bytes]:
    """A component's name is the smallest of its rows': the same whatever their order."""
    found: dict[int, bytes] = {}
    for root, name in zip(roots.tolist(), names, strict=True):
        found[root] = min(found.get(root, name), name)
    return found
