"""A dataset of rows whose negatives were mined during the training."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from core.engine.batching import RowRef
from core.engine.token_table import TokenTable
from core.engine.tokens import TokenRow
from core.runtime.context import RunContext


class MinedNegatives:
    """A table of rows as a generation sees it: a dataset for torch's DataLoader.

    A batch is looked up as a whole: a mined negative that answers another query of the batch, or stands in it
    already, is left out. (It is in the batch anyway, as a document of the other row.)
    """

    def __init__(self, table: TokenTable, folder: Path, count: int, *, beside_own: bool = False) -> None:
        self._table, self._folder = table, folder
        self._count, self._beside_own = count, beside_own
        self._answers = answers_of(table)
        self._generation, self._starts, self._documents = 0, np.empty(0), np.empty(0)

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, ref: RowRef) -> TokenRow:
        return self.__getitems__([ref])[0]

    def __getitems__(self, refs: Sequence[RowRef]) -> list[TokenRow]:
        queries, documents, starts = self._table.numbers()
        taken = {int(documents[starts[ref.row]]) for ref in refs}
        for ref in refs:
            taken |= self._answers[int(queries[ref.row])]
        found = []
        for ref in refs:
            if ref.generation == 0:
                found.append(self._table.row(ref.row))
                continue
            mined = self._of(ref.row, ref.generation).tolist()
            negatives = [number for number in mined if number not in taken]
            taken.update(negatives)
            found.append(self._table.row_with(ref.row, np.array(negatives, np.int64)))
        return found

    def _of(self, row: int, generation: int) -> np.ndarray:
        """Numbers of texts."""
        if generation != self._generation:
            with np.load(file_of(self._folder, generation)) as file:
                self._starts, self._documents = file["starts"], file["documents"]
            self._generation = generation
        return self._documents[self._starts[row] : self._starts[row + 1]]

    @property
    def documents_per_row(self) -> float:
        """The most."""
        own = self._table.documents_per_row
        return own + self._count if self._beside_own else max(1 + self._count, own)


def file_of(folder: Path, generation: int) -> Path:
    return folder / f"negatives-{generation}.npz"


def answers_of(table: TokenTable) -> dict[int, set[int]]:
    """For each query the documents that answer it, as numbers of texts."""
    queries, documents, starts = table.numbers()
    found: dict[int, set[int]] = defaultdict(set)
    for query, positive in zip(queries.tolist(), documents[starts[:-1]].tolist(), strict=True):
        found[query].add(positive)
    return found


def mined_folder(context: RunContext) -> Path:
    """Of this attempt."""
    folder = context.folder / "work" / "mined"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
