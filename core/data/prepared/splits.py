"""Which rows say again what was said, and which are kept to evaluate on: nothing that belongs together comes
apart."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np

from core.data.dedup.alike import connected, neighbours
from core.data.dedup.mixing import mix


@dataclass(frozen=True)
class Column:
    """What is known of the texts of one role, a row each.

    ``same_as`` [rows] is the number of the first row with the same text; ``near`` [pairs, 2] are pairs of
    such numbers whose texts nearly say the same.
    """

    same_as: np.ndarray
    near: np.ndarray

    @classmethod
    def of_hashes(cls, hashes: np.ndarray) -> "Column":
        """Of texts that are the same where their hashes are, and never nearly."""
        _, firsts, inverse = np.unique(hashes, return_index=True, return_inverse=True)
        return cls(firsts[inverse].astype(np.int64), np.empty((0, 2), np.int64))


def first_of_each(names: np.ndarray) -> np.ndarray:
    """Whether each row is the first of its name. [rows]"""
    first = np.zeros(len(names), bool)
    first[np.unique(names, return_index=True)[1]] = True
    return first


def mark_near_duplicates(queries: Column, positives: Column, asked: np.ndarray) -> np.ndarray:
    """Whether an earlier row that stays has nearly, or just, this query with nearly, or just, this positive.

    Only rows that are ``asked`` about [rows] stay or go; the others count for nothing. [rows]
    """
    size = len(asked)
    left_out = np.zeros(size, bool)
    rows = np.flatnonzero(asked)
    both = queries.same_as[rows] * size + positives.same_as[rows]
    left_out[rows[~first_of_each(both)]] = True
    near = [neighbours(column.near) for column in (queries, positives)]
    # A row can be near to another only where its query or its positive is near to another text.
    touched = np.isin(queries.same_as, queries.near) | np.isin(positives.same_as, positives.near)
    staying: set[tuple[int, int]] = set()
    for row in np.flatnonzero(touched & asked & ~left_out).tolist():
        own = int(queries.same_as[row]), int(positives.same_as[row])
        around = [[text, *known.get(text, ())] for text, known in zip(own, near, strict=True)]
        if any(pair in staying for pair in product(*around)):
            left_out[row] = True
        else:
            staying.add(own)
    return left_out


def components(
    queries: Column,
    positives: Column,
    labels: np.ndarray | None = None,
    passages: np.ndarray | None = None,
) -> np.ndarray:
    """Rows that have a text, or nearly one, a passage, or a label in common, however indirectly, have one
    number. ``passages`` [rows]: -1 for rows without one; the texts of one may differ. [rows]"""
    size = len(queries.same_as)
    one = [queries.same_as, queries.near[:, 0], positives.near[:, 0] + size]
    two = [positives.same_as + size, queries.near[:, 1], positives.near[:, 1] + size]
    nodes = 2 * size
    if passages is not None and (passages >= 0).any():
        of_passages = np.flatnonzero(passages >= 0)
        one.append(queries.same_as[of_passages])
        two.append(passages[of_passages] + nodes)
        nodes += int(passages.max()) + 1
    if labels is not None:
        known, inverse = np.unique(labels, return_inverse=True)
        one.append(queries.same_as)
        two.append(inverse + nodes)
        nodes += len(known)
    found = connected(np.concatenate(one), np.concatenate(two), nodes)
    return np.asarray(found[queries.same_as])


_OF_SAMPLES = 1 << 40


def draw(names: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Which rows are in a sample of ``count``, whatever their order. [rows] of bool

    ``names`` [rows] are 64 bits of each row's content.
    """
    # Another order than that of `assign`: else a sample would come from one split first.
    drawn = mix(names.astype(np.uint64) ^ mix(np.array([seed + _OF_SAMPLES], np.uint64)))
    order = np.argsort(drawn, kind="stable")
    chosen = np.zeros(len(names), bool)
    chosen[order[:count]] = True
    return chosen


def assign(belonging: np.ndarray, names: np.ndarray, shares: Mapping[str, float], seed: int) -> np.ndarray:
    """The split of every row: an index into ``[*shares, "train"]``. [rows]

    ``belonging`` [rows] are components, ``names`` [rows] 64 bits of each row's content. Components come in
    the order of their smallest name's hash under the seed, and each goes to the first split that has room for
    it: so shares are met from below, and which split a row is in does not depend on the order of the rows.
    """
    found, inverse = np.unique(belonging, return_inverse=True)
    first = first_of_each(names)  # what is said twice is one row
    sizes = np.bincount(inverse[first], minlength=len(found))
    smallest = np.full(len(found), np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(smallest, inverse, names.astype(np.uint64))
    order = np.argsort(mix(smallest ^ mix(np.array([seed + 1], np.uint64))), kind="stable")
    room = [share * int(first.sum()) for share in shares.values()]
    chosen = np.full(len(found), len(room), np.int8)
    for component, size in zip(order.tolist(), sizes[order].tolist(), strict=True):
        for index, left in enumerate(room):
            if size <= left + 0.5:
                chosen[component] = index
                room[index] -= size
                break
    return chosen[inverse]
