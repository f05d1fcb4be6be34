"""Distinct texts under numbers, on disk, so that each is encoded once."""

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from core.data.dedup.near_duplicates import Sketches
from core.data.io.table_files import ArrowFile, map_arrow_file
from core.data.rows.hashing import text_hash
from core.retrieval.texts import ID_AND_TEXT

_ROWS = 4096

LABELS = ("category", "dataset")
"""What may be known of a document: what it is about, where it was read."""


class _Labels:
    def __init__(self) -> None:
        self.numbers = array("q")  # of each text
        self.known: dict[str, int] = {}

    def add(self, text: int, value: str | None) -> None:
        number = -1 if value is None else self.known.setdefault(value, len(self.known))
        if text == len(self.numbers):
            self.numbers.append(number)
        elif self.numbers[text] < 0:
            self.numbers[text] = number


class Pool:
    """Numbers texts in the order of their first coming. Memory: about a hundred bytes a text."""

    def __init__(self, folder: Path, name: str, near: float | None = None, seed: int = 0) -> None:
        self._path = folder / f"{name}.arrow"
        self._file = ArrowFile(self._path, ID_AND_TEXT, batch_rows=_ROWS, on_full=self._flush)
        self._numbers: dict[int, int] = {}
        self._sketches = Sketches(folder, name, near, seed) if near is not None else None
        self._digest = hashlib.sha256()
        self._members, self._groups = array("q"), array("q")
        self._known_groups: dict[str, int] = {}
        self._labels = {label: _Labels() for label in LABELS}
        self._table: Any = None

    def __len__(self) -> int:
        return len(self._numbers)

    def add(self, text: str, name: str | None = None, group: str | None = None, **labels: str | None) -> int:
        """The text's number. Name and ``labels`` (see `LABELS`) are the first that are said of it; of groups
        (the pages that it stands on, say) it may have several."""
        mark = text_hash(text)
        number = self._numbers.setdefault(mark, len(self._numbers))
        new = number == len(self._labels[LABELS[0]].numbers)
        for label, values in self._labels.items():
            values.add(number, labels.get(label))
        if group is not None:
            self._members.append(number)
            self._groups.append(self._known_groups.setdefault(group, len(self._known_groups)))
        if new:
            self._digest.update(mark.to_bytes(8, "little"))
            self._file.add({"id": name or f"d{mark:016x}", "text": text})
        return number

    def number_of(self, text: str) -> int | None:
        """The text's number, if it is here."""
        return self._numbers.get(text_hash(text))

    def _flush(self) -> None:
        if self._sketches is not None:
            self._sketches.add([row["text"] for row in self._file.waiting])
        self._file.flush()

    def close(self) -> None:
        """Nothing is added any more; now it can be read."""
        self._flush()
        self._file.close()
        self._table = map_arrow_file(self._path)

    def texts(self, numbers: Sequence[int] | np.ndarray) -> list[str]:
        return list(self._table.column("text").take(pa.array(numbers, pa.int64())).to_pylist())

    def ids(self, numbers: Sequence[int] | np.ndarray) -> list[str]:
        return list(self._table.column("id").take(pa.array(numbers, pa.int64())).to_pylist())

    def all_texts(self, begin: int = 0, end: int | None = None) -> Iterator[str]:
        """In the order of their numbers, from ``begin`` up to ``end``."""
        whole = self._table.slice(begin, None if end is None else end - begin)
        for batch in whole.to_batches(_ROWS):
            yield from batch.column("text").to_pylist()

    def groups(self) -> np.ndarray:
        """[pairs, 2] of a text and a group that it is in, each once."""
        return np.unique(np.stack([self._members, self._groups], axis=1), axis=0).astype(np.int64)

    def group_number(self, group: str | None) -> int:
        """What `groups` has for a name; -1 if no text is in it."""
        return self._known_groups.get(group, -1) if group is not None else -1

    def labels(self, label: str) -> np.ndarray:
        """Of each text as a number, -1 where it has none. [texts]"""
        return np.array(self._labels[label].numbers, np.int64)

    def label_number(self, label: str, value: str | None) -> int:
        """What `labels` has for a value; -1 if no text has it."""
        return self._labels[label].known.get(value, -1) if value is not None else -1

    @property
    def sha256(self) -> str:
        """Of all texts in their order."""
        return self._digest.hexdigest()

    def near(self) -> tuple[np.ndarray, np.ndarray]:
        """As `Sketches.near`; without a threshold every text is its own and near to none."""
        if self._sketches is None:
            return np.arange(len(self)), np.empty((0, 2), np.int64)
        return self._sketches.near()
