"""Passages that do not answer: easy, medium and hard ones in the shares that were asked for.

Each row's are drawn from the passages of its own split. What repeats a positive nearly, or answers the same
query, is never a negative.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import bm25s
import numpy as np

from core.data.rows.words import tokenized, words_of
from core.spec.job import Difficulty
from core.spec.prepare import Negatives

LEVELS: tuple[Difficulty, ...] = ("easy", "medium", "hard")
_FOUND = 30
"""Passages that BM25 brings for a row: those with its words."""

_FOUND_CROSS = 100
"""So many where some shall be of another category."""

_LEAST_FOUND = 5
"""A row whose query brings fewer is looked for with the beginning of its positive, too."""

_BEGINNING = 300
_HARD = 10
"""So many of them are hard; those behind have a part of the words, and are medium."""

_SIBLINGS = 2
"""How far away in its document a passage is still beside another."""

_DRAWN = 24
"""Random candidates that are looked at for an easy or a medium one."""


@dataclass(frozen=True)
class Passages:
    """What is known of each passage but its text, [passages] each."""

    document: np.ndarray
    category: np.ndarray  # -1: none
    number: np.ndarray  # in its document

    def __len__(self) -> int:
        return len(self.document)


@dataclass
class Chosen:
    """``negatives`` and ``levels`` [rows, per_query]: a passage and an index into `LEVELS`, or -1 where none
    is."""

    negatives: np.ndarray
    levels: np.ndarray
    counts: Counter[str] = field(default_factory=Counter)
    empty: int = 0


class _Shares:
    """Keeps the counts of the levels at their shares, row by row: a level that ran ahead has to wait.

    Error diffusion: a level gets the next place when it lags most, and none while it is more than ``slack``
    ahead.
    """

    def __init__(self, shares: Sequence[float], slack: float) -> None:
        self._shares, self._slack = shares, slack
        self.counts = [0] * len(shares)

    def order(self) -> list[int]:
        """Levels that may have the next place, those that lag most first."""
        whole = sum(self.counts) + 1
        lag = [share * whole - count for share, count in zip(self._shares, self.counts, strict=True)]
        able = [level for level, share in enumerate(self._shares) if share > 0 and lag[level] > -self._slack]
        return sorted(able, key=lambda level: -lag[level])


def choose(
    asked: Negatives,
    mix: dict[Difficulty, float],
    passages: Passages,
    rows: np.ndarray,
    positive: np.ndarray,
    forbidden: Callable[[int], set[int]],
    alike: Callable[[int], set[int]],
    texts: Callable[[np.ndarray], list[str]],
    queries: Callable[[np.ndarray], list[str]],
    seed: int,
    check_stop: Callable[[], None],
    into: Chosen,
) -> None:
    """Fills the negatives of one split's rows.

    rows [split rows] are row numbers, positive [rows of all splits] the passage of each; ``forbidden`` gives
    the passages that answer a row's query, or nearly repeat one that does; ``texts`` and ``queries`` fetch
    texts by number.
    """
    if asked.per_query == 0 or not len(rows):
        return
    pool = np.unique(positive[rows])
    # Of a few passages all have some of the words: no more than a third of them counts as found.
    known = max(1, min(_FOUND, len(pool) // 3))
    depth = max(known, min(_FOUND_CROSS, len(pool))) if asked.cross_category else known
    near_words = _by_words(pool, rows, positive, depth, texts, queries, check_stop)
    shares = _Shares([mix[level] for level in LEVELS], slack=asked.per_query)
    crossed = _Shares([asked.cross_category, 1 - asked.cross_category], slack=1)
    drawer = _Drawer(passages, pool)
    uses: Counter[int] = Counter()
    # In no order of their documents: what some rows lack, others can make up for.
    for turn, place in enumerate(np.random.default_rng(seed).permutation(len(rows)).tolist()):
        if turn % 4096 == 0:
            check_stop()
        row = int(rows[place])
        own = int(positive[row])
        taken = forbidden(row) | {own}
        generator = np.random.default_rng((seed, row))
        candidates = _candidates(passages, own, near_words[place], drawer, generator, known)
        per_level: Counter[int] = Counter()
        for slot in range(asked.per_query):
            for level in shares.order():
                if per_level[level] >= asked.max_per_difficulty:
                    continue
                free = [
                    item for item in candidates[level] if item not in taken and uses[item] < asked.max_uses
                ]
                found = _pick(passages, own, level, free, crossed)
                if found is None:
                    continue
                taken |= alike(found)
                uses[found] += 1
                per_level[level] += 1
                shares.counts[level] += 1
                into.negatives[row, slot], into.levels[row, slot] = found, level
                break
            else:
                into.empty += asked.per_query - slot
                break
    into.counts.update(dict(zip(LEVELS, shares.counts, strict=True)))


def _pick(passages: Passages, own: int, level: int, free: list[int], crossed: _Shares) -> int | None:
    """The first candidate that is of this level."""
    same = [passages.category[item] == passages.category[own] for item in free]
    if level == 0:  # of another topic, where there is one
        return next(
            (item for item, known in zip(free, same, strict=True) if not known), free[0] if free else None
        )
    if level == 1:
        return free[0] if free else None
    for other in crossed.order():
        wanted = other == 1
        for item, known in zip(free, same, strict=True):
            if bool(known) == wanted:
                crossed.counts[other] += 1
                return item
    return free[0] if free else None


def _candidates(
    passages: Passages,
    own: int,
    found: np.ndarray,
    drawer: "_Drawer",
    generator: np.random.Generator,
    count: int,
) -> list[list[int]]:
    """Easy, medium and hard ones, each in the order in which they are to be taken."""
    words = [item for item in found[:count].tolist() if item not in (own, -1)]
    beside = drawer.beside(own)
    first = min(_HARD, -(-count // 2))
    # Where some shall be of another category, their words are looked for further down.
    further = [item for item in found[count:].tolist() if item != -1]
    others = [item for item in further if passages.category[item] != passages.category[own]]
    hard = [*_by_turns(words[:first], beside), *others]
    some_words = generator.permutation(words[first:]).tolist()
    far, alike, any_of_them = drawer.draw(generator, own)
    known = {own, *words, *beside}
    medium = _by_turns(far, [item for item in some_words if item not in beside])
    return [
        [
            item
            for item in any_of_them
            if item not in known and passages.document[item] != passages.document[own]
        ],
        [*medium, *(item for item in alike if item not in known)],
        hard,
    ]


def _by_turns(one: list[int], two: list[int]) -> list[int]:
    length = min(len(one), len(two))
    merged = [item for pair in zip(one, two, strict=False) for item in pair]
    return list(dict.fromkeys([*merged, *one[length:], *two[length:]]))


def _bounds(ordered: np.ndarray) -> dict[int, tuple[int, int]]:
    """Where each value of an ordered array begins and ends."""
    names, starts = np.unique(ordered, return_index=True)
    ends = [*starts[1:].tolist(), len(ordered)]
    return dict(zip(names.tolist(), zip(starts.tolist(), ends, strict=True), strict=True))


class _Drawer:
    """Random passages of a pool."""

    def __init__(self, passages: Passages, pool: np.ndarray) -> None:
        self._passages, self._pool = passages, pool
        self._sorted = pool[np.argsort(passages.category[pool], kind="stable")]
        self._bounds = _bounds(passages.category[self._sorted])
        self._by_place = pool[np.lexsort((passages.number[pool], passages.document[pool]))]
        self._documents = _bounds(passages.document[self._by_place])
        self._place = {item: place for place, item in enumerate(self._by_place.tolist())}

    def draw(self, generator: np.random.Generator, own: int) -> tuple[list[int], list[int], list[int]]:
        """Some of its document that are not beside it, some of its category, some of all."""
        passages = self._passages
        start, end = self._bounds[int(passages.category[own])]
        alike = self._sorted[generator.integers(start, end, _DRAWN // 2)].tolist()
        any_of_them = self._pool[generator.integers(0, len(self._pool), _DRAWN)].tolist()
        first, last = self._documents[int(passages.document[own])]
        beside = {own, *self.beside(own)}
        drawn = self._by_place[generator.integers(first, last, 4)].tolist()
        far = [item for item in dict.fromkeys(drawn) if item not in beside]
        return far, alike, any_of_them

    def beside(self, own: int) -> list[int]:
        """Passages of the same document close by, the nearest first."""
        place, passages = self._place[own], self._passages
        found = []
        for step in (1, -1, 2, -2):
            other = place + step
            if 0 <= other < len(self._by_place):
                item = int(self._by_place[other])
                if (
                    passages.document[item] == passages.document[own]
                    and abs(int(passages.number[item]) - int(passages.number[own])) <= _SIBLINGS
                ):
                    found.append(item)
        return found


def _by_words(
    pool: np.ndarray,
    rows: np.ndarray,
    positive: np.ndarray,
    depth: int,
    texts: Callable[[np.ndarray], list[str]],
    queries: Callable[[np.ndarray], list[str]],
    check_stop: Callable[[], None],
) -> np.ndarray:
    """For each row the passages of the pool that BM25 ranks first for its query, then -1. [rows, depth]"""
    found = np.full((len(rows), depth), -1, np.int64)
    tokens = tokenized(texts(pool))
    if not tokens.vocab:  # bm25s cannot index texts without any token
        return found
    index = bm25s.BM25()
    index.index(tokens, show_progress=False)

    def look(asked: list[str]) -> np.ndarray:
        known = [[word for word in words_of(text) if word in tokens.vocab] for text in asked]
        ranked, scores = index.retrieve(known, k=depth, show_progress=False)
        return np.where(scores > 0, pool[ranked], -1)

    for start in range(0, len(rows), 2048):
        check_stop()
        part = rows[start : start + 2048]
        asked = queries(part)
        ranked = look(asked)
        few = np.flatnonzero((ranked >= 0).sum(axis=1) < min(_LEAST_FOUND, depth))
        if len(few):
            beginnings = [text[:_BEGINNING] for text in texts(positive[part[few]])]
            ranked[few] = look(
                [f"{asked[place]} {text}" for place, text in zip(few, beginnings, strict=True)]
            )
        found[start : start + len(part)] = ranked
    return found
