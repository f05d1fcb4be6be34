"""Distinct texts with numbers, on disk: what is encoded once, however often it stands in the data."""

from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from core.data.hashing import text_hash
from core.data.near_duplicates import Sketches

_ROWS = 4096
_SCHEMA = pa.schema([("id", pa.large_string()), ("text", pa.large_string())])


class Pool:
    """Numbers texts in the order of their first coming. Memory: about a hundred bytes a text."""

    def __init__(self, folder: Path, name: str, near: float | None = None, seed: int = 0) -> None:
        self._path = folder / f"{name}.arrow"
        self._sink = pa.OSFile(str(self._path), "wb")
        self._writer = pa.ipc.new_file(self._sink, _SCHEMA)
        self._numbers: dict[int, int] = {}
        self._waiting: list[dict[str, str | None]] = []
        self._sketches = Sketches(folder, name, near, seed) if near is not None else None
        self._groups = array("q")
        self._known_groups: dict[str, int] = {}
        self._table: Any = None

    def __len__(self) -> int:
        return len(self._numbers)

    def add(self, text: str, name: str | None = None, group: str | None = None) -> int:
        """The text's number. Name and group are those of its first coming."""
        mark = text_hash(text)
        number = self._numbers.setdefault(mark, len(self._numbers))
        if number == len(self._groups):
            self._groups.append(self._group(group))
            self._waiting.append({"id": name or f"d{mark:016x}", "text": text})
            if len(self._waiting) == _ROWS:
                self._flush()
        elif group is not None and self._groups[number] < 0:
            self._groups[number] = self._group(group)
        return number

    def _group(self, group: str | None) -> int:
        return -1 if group is None else self._known_groups.setdefault(group, len(self._known_groups))

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.Table.from_pylist(self._waiting, schema=_SCHEMA))
            if self._sketches is not None:
                self._sketches.add([str(row["text"]) for row in self._waiting])
            self._waiting.clear()

    def close(self) -> None:
        """Nothing is added any more; now it can be read."""
        self._flush()
        self._writer.close()
        self._sink.close()
        self._table = pa.ipc.open_file(pa.memory_map(str(self._path))).read_all()

    def texts(self, numbers: Sequence[int] | np.ndarray) -> list[str]:
        return list(self._table.column("text").take(pa.array(numbers, pa.int64())).to_pylist())

    def ids(self, numbers: Sequence[int] | np.ndarray) -> list[str]:
        return list(self._table.column("id").take(pa.array(numbers, pa.int64())).to_pylist())

    def all_texts(self, end: int | None = None) -> Iterator[str]:
        """In the order of their numbers, up to ``end``."""
        for batch in self._table.slice(0, end).to_batches(_ROWS):
            yield from batch.column("text").to_pylist()

    def groups(self) -> np.ndarray:
        """The group of each text, -1 where it has none. [texts]"""
        return np.array(self._groups, np.int64)

    def near(self) -> tuple[np.ndarray, np.ndarray]:
        """As `Sketches.near`; without a threshold every text is its own and near to none."""
        if self._sketches is None:
            return np.arange(len(self)), np.empty((0, 2), np.int64)
        return self._sketches.near()
