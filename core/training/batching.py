"""Which rows make a batch, and which texts of a batch are encoded together."""

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

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
        shares = shares_of(
            [len(self._first[index]) for index in able],
            None if weights is None else [weights[index] for index in able],
            temperature,
        )
        self.counts = [0] * len(self._keys)  # batches of each dataset in an epoch
        for index, count in zip(able, _whole(shares, self.per_epoch), strict=True):
            self.counts[index] = count

    def _plan(self, dataset: int, epoch: int) -> list[list[int]]:
        # The first dataset's plan is what it would be alone.
        return plan_epoch(self._keys[dataset], self.batch_size, self._seed + 7919 * dataset, epoch)

    def __len__(self) -> int:
        return self.total

    def limit(self, batches: int) -> None:
        """Ends the sequence after so many batches, or stretches it to them."""
        self.total = batches

    def __iter__(self) -> Iterator[list[int]]:
        streams = [self._stream(index) for index in range(len(self._keys))]
        given = epoch = 0
        while given < self.total:
            for dataset in self._order(epoch)[: self.total - given]:
                yield next(streams[dataset])
                given += 1
            epoch += 1

    def _order(self, epoch: int) -> list[int]:
        """Which dataset each batch of an epoch comes from."""
        drawn = np.repeat(np.arange(len(self.counts)), self.counts)
        if len(self.counts) > 1:
            drawn = np.random.default_rng((self._seed, epoch, 1)).permutation(drawn)
        return drawn.tolist()

    def _stream(self, dataset: int) -> Iterator[list[int]]:
        """One dataset's batches, for ever."""
        start = self._starts[dataset]
        for epoch in itertools.count():
            for batch in self._plan(dataset, epoch) if epoch else self._first[dataset]:
                yield [start + row for row in batch] if start else batch


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
class Packing:
    """How texts are put together into micro-batches."""

    token_budget: int  # the most tokens of a micro-batch, padding included
    multiple: int = 1  # padded lengths are multiples of it
    overhead: int = 0  # what a micro-batch costs beside its tokens, in tokens
    width: int | None = None  # pad to so many tokens, whatever the texts are

    def padded(self, tokens: int | np.ndarray) -> Any:
        """Tokens of a text, or of each, with its padding."""
        at_least = np.maximum(tokens, self.width or 1)
        return -(-at_least // self.multiple) * self.multiple


def plan_micro_batches(lengths: Sequence[int], packing: Packing) -> list[list[int]]:
    """Groups texts of similar length so that as little as possible is computed in vain.

    ``lengths`` are tokens of each text. Every group, padded to its longest text, is within the budget (or
    one text). Of all ways to cut the texts, longest first, into groups, this is the one with the fewest
    tokens, padding and overhead included. Longest first: what does not fit in memory fails at once and not
    an hour later.
    """
    order = np.argsort(-np.asarray(lengths), kind="stable")
    padded = packing.padded(np.asarray(lengths)[order])
    count = len(order)
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
    groups: list[list[int]] = []
    end = count
    while end:
        groups.append(order[begins[end] : end].tolist())
        end = int(begins[end])
    return groups[::-1]
