"""Which of a row's negatives an epoch trains on: by difficulty, and others in every epoch.

The choice follows from the seed, the epoch and the row alone. So it needs no state: whoever goes on from a
checkpoint, in whichever process, chooses the same.
"""

from collections import Counter
from collections.abc import Sequence, Set

import numpy as np

from core.engine.batching import RowRef
from core.engine.token_table import LEVELS, TokenTable
from core.engine.tokens import TokenRow
from core.errors import BadData
from core.spec.train import TrainSpec


class ChosenNegatives:
    """A table of rows as its epochs see it: a dataset for torch's DataLoader."""

    def __init__(
        self,
        table: TokenTable,
        levels: Sequence[Set[str]] | None,
        count: int | None,
        most_of_level: int | None,
        seed: int,
    ) -> None:
        self._table, self._count, self._most, self._seed = table, count, most_of_level, seed
        self._levels = [np.array([LEVELS[level] for level in sorted(names)]) for names in levels or []]

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, ref: RowRef) -> TokenRow:
        return self._table.row(ref.row, self.of(ref.row, ref.epoch))

    def of(self, row: int, epoch: int) -> np.ndarray:
        """Numbers of the negatives, from 0, in the order in which the row has them."""
        levels = self._table.levels(row)
        if self._count is None and self._most is None:
            return np.flatnonzero(self._allowed(levels, epoch))
        # Those that were met least come first, in an order that is the row's own: so none comes again before
        # all of its level have come, whatever the caps. From the first epoch on: a choice has no memory.
        order = np.random.default_rng((self._seed, row)).permutation(len(levels))
        met = np.zeros(len(levels), np.int64)
        chosen = order[:0]
        for earlier in range(epoch + 1):
            able = order[self._allowed(levels, earlier)[order]]
            chosen = self._first(able[np.argsort(met[able], kind="stable")], levels)
            met[chosen] += 1
        return np.sort(chosen)

    def _allowed(self, levels: np.ndarray, epoch: int) -> np.ndarray:
        if not self._levels:
            return np.ones(len(levels), bool)
        return np.isin(levels, self._levels[min(epoch, len(self._levels) - 1)])

    def _first(self, order: np.ndarray, levels: np.ndarray) -> np.ndarray:
        """As many as an epoch takes, with no more of a level than may be."""
        if self._most is not None:
            seen: Counter[int] = Counter()
            kept = []
            for number in order.tolist():
                seen[int(levels[number])] += 1
                if seen[int(levels[number])] <= self._most:
                    kept.append(number)
            order = np.array(kept, np.int64)
        return order[: self._count]

    @property
    def documents_per_row(self) -> float:
        """The mean, in the epoch that has most."""
        rows = np.unique(np.linspace(0, len(self) - 1, min(len(self), 1000)).astype(int))

        def mean(epoch: int) -> float:
            return float(np.mean([len(self.of(row, epoch)) for row in rows.tolist()]))

        return 1 + max(mean(epoch) for epoch in range(max(1, len(self._levels))))


def choose_negatives(spec: TrainSpec, table: TokenTable) -> ChosenNegatives | None:
    """None where every epoch trains on all. Raises `BadData` for a curriculum without difficulties."""
    if spec.curriculum is None and spec.resample is None:
        return None
    levels = None
    if spec.curriculum is not None:
        levels = [set(names) for names in spec.curriculum.epochs]
        known = set(table.known_levels())
        if missing := set().union(*levels) - known:
            raise BadData(
                f"curriculum names {', '.join(sorted(missing))}, and no negative has this difficulty; there "
                f"are {', '.join(sorted(known)) or 'none'} (column difficulty: prepare makes it; what mine "
                "takes from the top is hard, all three levels come with sampling random)"
            )
    resample = spec.resample
    return ChosenNegatives(
        table,
        levels,
        resample.negatives if resample else None,
        resample.max_per_difficulty if resample else None,
        spec.seed,
    )
