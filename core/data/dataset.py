"""The form that every prepared dataset has: a Parquet file a split, and a page of facts.

``dataset.json`` {type, splits: {name: rows}, statistics, sources, licence, ...}, ``SPLIT.parquet`` with the
columns of `SCHEMA`, ``rejects.jsonl`` when rows were left out. Nothing in it points anywhere else.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from core.data.pairs import DATASET_FACTS, TrainingRow
from core.errors import BadData

_VERSION = 1
_ROWS = 4096

SCHEMA = pa.schema(
    [
        ("query", pa.large_string()),
        ("positive", pa.large_string()),
        ("negatives", pa.large_list(pa.large_string())),
        ("scores", pa.large_list(pa.float32())),
        ("category", pa.large_string()),
        ("group", pa.large_string()),
    ]
)


class SplitWriter:
    """Writes one split, a few thousand rows at a time."""

    def __init__(self, folder: Path, name: str) -> None:
        self._writer = pq.ParquetWriter(folder / f"{name}.parquet", SCHEMA, compression="zstd")
        self._waiting: list[dict[str, Any]] = []
        self.rows = 0

    def add(self, row: TrainingRow) -> None:
        self._waiting.append(vars(row))
        self.rows += 1
        if len(self._waiting) == _ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.Table.from_pylist(self._waiting, schema=SCHEMA))
            self._waiting.clear()

    def close(self) -> None:
        self._flush()
        self._writer.close()


def write_facts(folder: Path, facts: dict[str, Any]) -> None:
    text = json.dumps({"format": _VERSION, "type": "triplets", **facts}, indent=2, ensure_ascii=False)
    (folder / DATASET_FACTS).write_text(text + "\n", encoding="utf-8")


def read_facts(folder: Path) -> dict[str, Any]:
    """Raises `BadData` for a dataset of a newer format."""
    facts: dict[str, Any] = json.loads((folder / DATASET_FACTS).read_text(encoding="utf-8"))
    if facts.get("format") != _VERSION:
        raise BadData(
            f"{folder.name} is a dataset of format {facts.get('format')}; this version reads {_VERSION}"
        )
    return facts


def read_split(folder: Path, split: str) -> Iterator[TrainingRow]:
    """The rows of a split, streamed. Raises `BadData` when there is no such split, or nothing in it."""
    splits = read_facts(folder)["splits"]
    if not splits.get(split):
        have = ", ".join(name for name, rows in splits.items() if rows)
        raise BadData(f"this dataset has no split {split!r}; it has {have or 'none'}")
    with pq.ParquetFile(folder / f"{split}.parquet") as file:
        for batch in file.iter_batches(batch_size=_ROWS):
            for values in batch.to_pylist():
                yield TrainingRow(
                    **{**values, "negatives": values["negatives"] or [], "scores": values["scores"] or []}
                )
