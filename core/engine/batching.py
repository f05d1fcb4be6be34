"""Which rows make a batch, and which texts of a batch are encoded together."""

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np


def plan_epoch(keys: Sequence[tuple[int, ...]], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """A shuffled epoch in which no text stands twice in one batch.

    Rows that would repeat a text wait for the next batch. Every row comes once an epoch, except that a
    leftover batch of a single row without negatives of its own, which has nothing to learn from, is dropped.
    """
    order = np.random.default_rng((seed, epoch)).permutation(len(keys))
    fresh, waiting = iter(order.tolist()), deque[int]()
    batches = []
    exhausted = False
    while waiting or not exhausted:
        batch: list[int] = []
        taken: set[int] = set()
        put_back: deque[int] = deque()
        while len(batch) < batch_size:
            if waiting:
                row = waiting.popleft()
            elif (row := next(fresh, -1)) < 0:
                exhausted = True
                break
            if taken.isdisjoint(keys[row]):
                batch.append(row)
                taken.update(keys[row])
            else:
                put_back.append(row)
        put_back.extend(waiting)
        waiting = put_back
        if len(batch) > 1 or (batch and len(keys[batch[0]]) > 2):
            batches.append(batch)
    return batches


def shares_of(sizes: Sequence[int], weights: Sequence[float] | None, temperature: float = 1.0) -> list[float]:
    """How often each of several datasets is drawn from. The shares sum to 1.

    ``weights`` as given, or sizes to the power of 1 / temperature: 1 is proportional, more is more even.
    """
    raw = list(weights) if weights is not None else [size ** (1 / temperature) for size in sizes]
    return [share / sum(raw) for share in raw]


class RowRef(NamedTuple):
    """A row of a table, and which version of it: what it stands for may change from epoch to epoch."""

    row: int
    epoch: int = 0
    """Of the row's dataset: which of the row's negatives it has (resample, curriculum)."""
    generation: int = 0
    """Of the negatives that were mined during the training; 0 are the row's own."""


Change = tuple[int, list[float]]
"""From which batch on, and what each dataset's share is multiplied by."""


class TrainingBatches:
    """The whole training as one sequence of batches, epoch after epoch, each batch of one dataset.

    The trainer sees one long epoch, so that going on after ``n`` batches means skipping ``n`` of the same
    sequence: nothing to restore, and no way to repeat another epoch's order. Same seed, same sequence.

    ``keys`` are those of all rows; ``sizes`` says how many of them each dataset has, one after the other.
    An epoch has as many batches as all datasets together; a dataset that is drawn from more often than its
    size would give begins an epoch of its own meanwhile.
    """

    def __init__(
        self,
        keys: Sequence[tuple[int, ...]],
        batch_size: int,
        seed: int,
        epochs: float,
        *,
        sizes: Sequence[int] | None = None,
        weights: Sequence[float] | None = None,
        temperature: float = 1.0,
    ) -> None:
        self.batch_size = batch_size
        self._seed = seed
        bounds = np.cumsum([0, *(sizes or [len(keys)])]).tolist()
        self._starts = bounds[:-1]
        self._keys = [keys[start:end] for start, end in itertools.pairwise(bounds)]
        self._first = [self._plan(index, 0) for index in range(len(self._keys))]
        self.per_epoch = sum(len(plan) for plan in self._first)
        self.total = max(1, round(self.per_epoch * epochs)) if self.per_epoch else 0
        # A dataset that makes no batch has no share.
        able = [index for index, plan in enumerate(self._first) if plan]
        self._shares = [0.0] * len(self._keys)
        for index, share in zip(
            able,
            shares_of(
                [len(self._first[index]) for index in able],
                None if weights is None else [weights[index] for index in able],
                temperature,
            ),
            strict=True,
        ):
            self._shares[index] = share
        self.changes: list[Change] = []
        self._generations: list[tuple[int, int]] = []
        self.counts = self._counts([1.0] * len(self._keys))  # batches of each dataset in an epoch

    def _plan(self, dataset: int, epoch: int) -> list[list[int]]:
        # The first dataset's plan is what it would be alone.
        return plan_epoch(self._keys[dataset], self.batch_size, self._seed + 7919 * dataset, epoch)

    def __len__(self) -> int:
        return self.total

    def limit(self, batches: int) -> None:
        """Ends the sequence after so many batches, or stretches it to them."""
        self.total = batches

    def reweigh(self, batch: int, factors: Sequence[float]) -> None:
        """From that batch of the sequence on, shares are multiplied by these, one a dataset; 0 leaves it out.

        The batch must lie ahead of what was taken. The change belongs to the sequence: who goes on later
        must know it (``changes``) to get the same.
        """
        self.changes.append((batch, list(factors)))

    def renew(self, batch: int, generation: int) -> None:
        """From that batch of the sequence on, rows are of this generation. The batch must lie ahead of what
        was taken."""
        self._generations.append((batch, generation))

    def _generation(self, batch: int) -> int:
        return next((generation for begin, generation in reversed(self._generations) if begin <= batch), 0)

    def __iter__(self) -> Iterator[list[RowRef]]:
        streams = [self._stream(index) for index in range(len(self._keys))]
        given = drawing = 0
        while given < self.total:
            begun = self._factors(given)
            for dataset in self._order(drawing, begun):
                if given == self.total or self._factors(given) is not begun:
                    break
                epoch, rows = next(streams[dataset])
                generation = self._generation(given)
                yield [RowRef(row, epoch, generation) for row in rows]
                given += 1
            drawing += 1

    def _factors(self, batch: int) -> list[float] | None:
        """The last change before a batch; None before the first."""
        return next((factors for position, factors in reversed(self.changes) if position <= batch), None)

    def _counts(self, factors: Sequence[float]) -> list[int]:
        """An epoch's batches of each dataset."""
        weighed = [share * factor for share, factor in zip(self._shares, factors, strict=True)]
        able = [index for index, share in enumerate(weighed) if share > 0]
        counts = [0] * len(weighed)
        whole = sum(weighed)
        for index, count in zip(
            able, _whole([weighed[index] / whole for index in able], self.per_epoch), strict=True
        ):
            counts[index] = count
        return counts

    def _order(self, drawing: int, factors: Sequence[float] | None) -> list[int]:
        """Which dataset each batch of an epoch comes from."""
        counts = self.counts if factors is None else self._counts(factors)
        drawn = np.repeat(np.arange(len(counts)), counts)
        if len(counts) > 1:
            drawn = np.random.default_rng((self._seed, drawing, 1)).permutation(drawn)
        return drawn.tolist()

    def _stream(self, dataset: int) -> Iterator[tuple[int, list[int]]]:
        """One dataset's batches, for ever: (epoch, numbers of rows)."""
        start = self._starts[dataset]
        for epoch in itertools.count():
            for batch in self._plan(dataset, epoch) if epoch else self._first[dataset]:
                yield epoch, [start + row for row in batch]


def _whole(shares: Sequence[float], total: int) -> list[int]:
    """Whole numbers in these shares that sum to ``total``, at least 1 each where there are enough."""
    counts = [max(1, int(share * total)) for share in shares]
    by_rest = sorted(range(len(shares)), key=lambda index: counts[index] - shares[index] * total)
    for turn in range(total - sum(counts)):
        counts[by_rest[turn % len(counts)]] += 1
    while sum(counts) > max(total, len(counts)):
        counts[counts.index(max(counts))] -= 1
    return counts


@dataclass(frozen=True)
class Share:
    """Which part of every batch's texts a process encodes."""

    rank: int = 0
    size: int = 1

    def deal(self, texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Texts, longest first, among the processes, one after the other: all get about the same work.

        Returns the texts of this one, and, for each of ``texts``, where its embedding stands when those of
        all processes are put one behind the other. All get the same number: the last text comes again.
        """
        each = -(-len(texts) // self.size)
        filled = np.pad(texts, (0, each * self.size - len(texts)), mode="edge")
        turns = np.arange(len(texts))
        return filled[self.rank :: self.size], turns % self.size * each + turns // self.size


WHOLE = Share()


@dataclass(frozen=True)
class Packing:
    """How texts are put together into micro-batches."""

    token_budget: int  # the most tokens of a micro-batch, padding included
    multiple: int = 1  # padded lengths are multiples of it
    overhead: int = 0  # what a micro-batch costs beside its tokens, in tokens
    width: int | None = None  # pad to so many tokens, whatever the texts are
    longest: int | None = None  # the model's context: nothing is padded beyond it
    texts: int | None = None  # texts of a micro-batch, whatever their length: there is no budget then

    def padded(self, tokens: int | np.ndarray) -> Any:
        """Tokens of a text, or of each, with its padding."""
        at_least = np.maximum(tokens, self.width or 1)
        rounded = -(-at_least // self.multiple) * self.multiple
        return rounded if self.longest is None else np.maximum(np.minimum(rounded, self.longest), tokens)


def plan_micro_batches(lengths: Sequence[int], packing: Packing) -> list[slice]:
    """Groups texts of similar length so that as little as possible is computed in vain.

    ``lengths`` are tokens of each text, longest first: so what does not fit in memory fails at once and not
    an hour later. Every group, padded to its first text, is within the budget (or one text). Of all ways to
    cut the texts into groups, this is the one with the fewest tokens, padding and overhead included.
    """
    if packing.texts is not None:
        return [slice(start, start + packing.texts) for start in range(0, len(lengths), packing.texts)]
    padded = packing.padded(np.asarray(lengths))
    count = len(lengths)
    if packing.overhead >= packing.token_budget:  # no padding costs as much as another group
        return _fewest_groups(padded, packing.token_budget)
    least = np.zeros(count + 1)  # of tokens, to get through the first so many texts
    begins = np.zeros(count + 1, np.int64)  # of the last group on that way
    first = 0
    for end in range(1, count + 1):
        while first < end - 1 and (end - first) * padded[first] > packing.token_budget:
            first += 1
        starts = slice(first, end)
        tokens = least[starts] + np.arange(end - first, 0, -1) * padded[starts]
        best = first + int(tokens.argmin())
        least[end] = tokens[best - first] + packing.overhead
        begins[end] = best
    groups: list[slice] = []
    end = count
    while end:
        groups.append(slice(int(begins[end]), end))
        end = int(begins[end])
    return groups[::-1]


def _fewest_groups(padded: np.ndarray, budget: int) -> list[slice]:
    groups: list[slice] = []
    start = 0
    while start < len(padded):
        end = min(len(padded), start + max(1, budget // int(padded[start])))
        groups.append(slice(start, end))
        start = end
    return groups
