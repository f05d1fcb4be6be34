"""Which rows make a batch, and which texts of a batch are encoded together."""

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa


def row_keys(table: pa.Table) -> list[tuple[int, ...]]:
    """For each row the 64-bit hashes of its distinct texts: what may not meet twice in a batch."""
    keys = []
    for batch in table.to_batches(max_chunksize=4096):
        columns = batch.to_pydict()
        for query, positive, negatives in zip(
            columns["query"], columns["positive"], columns["negatives"], strict=True
        ):
            keys.append(tuple({_hash(text) for text in (query, positive, *(negatives or ()))}))
    return keys


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


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


class TrainingBatches:
    """The whole training as one sequence of batches, epoch after epoch.

    The trainer sees one long epoch, so that going on after ``n`` batches means skipping ``n`` of the same
    sequence: nothing to restore, and no way to repeat another epoch's order. Same seed, same sequence.
    """

    def __init__(self, keys: Sequence[tuple[int, ...]], batch_size: int, seed: int, epochs: float) -> None:
        self._keys = keys
        self.batch_size = batch_size
        self._seed = seed
        self._first = plan_epoch(keys, batch_size, seed, 0)
        self.per_epoch = len(self._first)
        self.total = max(1, round(self.per_epoch * epochs)) if self.per_epoch else 0

    def __len__(self) -> int:
        return self.total

    def limit(self, batches: int) -> None:
        """Ends the sequence after so many batches, or stretches it to them."""
        self.total = batches

    def __iter__(self) -> Iterator[list[int]]:
        given = epoch = 0
        while given < self.total:
            plan = plan_epoch(self._keys, self.batch_size, self._seed, epoch) if epoch else self._first
            for batch in plan[: self.total - given]:
                yield batch
                given += 1
            epoch += 1


def plan_micro_batches(lengths: Sequence[int], token_budget: int, multiple: int = 8) -> list[list[int]]:
    """Groups texts of similar length so that padding costs little.

    ``lengths`` are tokens of each text. Every group, padded to its longest text rounded up to
    ``multiple``, has at most ``token_budget`` tokens (or one text). Longest first: what does not fit in
    memory fails at once and not an hour later.
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    groups: list[list[int]] = []
    padded = 0
    for index in order:
        if not groups or (len(groups[-1]) + 1) * padded > token_budget:
            groups.append([])
            padded = -(-max(lengths[index], 1) // multiple) * multiple
        groups[-1].append(index)
    return groups
