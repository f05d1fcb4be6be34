"""Training rows on disk: an Arrow file that is memory-mapped, so that data may be larger than memory."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from core.data.pairs import TrainingRow
from core.data.readers import Reject
from core.errors import BadData

SCHEMA = pa.schema(
    [
        ("query", pa.large_string()),
        ("positive", pa.large_string()),
        ("negatives", pa.large_list(pa.large_string())),
    ]
)
_BATCH = 4096
_SHOWN = 5


@dataclass(frozen=True)
class Written:
    """How many rows were kept, how many refused, and the first reasons."""

    rows: int
    rejects: int
    examples: list[Reject]


def write_table(
    rows: Iterable[TrainingRow | Reject],
    path: Path,
    rejects_path: Path,
    max_reject_share: float,
    check_stop: Callable[[], None] = lambda: None,
) -> Written:
    """Writes the good rows to ``path`` and the bad ones' places and reasons to ``rejects_path``.

    Raises `BadData` when nothing is left, or more than ``max_reject_share`` of the rows is unreadable.
    """
    kept = refused = 0
    examples: list[Reject] = []
    batch: list[TrainingRow] = []
    with (
        pa.OSFile(str(path), "wb") as sink,
        pa.ipc.new_stream(sink, SCHEMA) as writer,
        rejects_path.open("w", encoding="utf-8") as rejects,
    ):
        for row in rows:
            if isinstance(row, Reject):
                refused += 1
                examples += [row] if len(examples) < _SHOWN else []
                rejects.write(json.dumps(vars(row)) + "\n")
                continue
            batch.append(row)
            kept += 1
            if len(batch) == _BATCH:
                _write(writer, batch)
                check_stop()
        _write(writer, batch)
    if refused == 0:
        rejects_path.unlink()
    shown = "; ".join(f"{reject.file}, line {reject.line}: {reject.reason}" for reject in examples)
    if kept == 0:
        raise BadData(f"No row can be trained on. {shown}" if refused else "The dataset is empty.")
    if refused > max_reject_share * (kept + refused):
        raise BadData(
            f"{refused} of {kept + refused} rows cannot be used, more than max_reject_share "
            f"({max_reject_share:g}) allows. {shown}"
        )
    return Written(kept, refused, examples)


def _write(writer: pa.ipc.RecordBatchStreamWriter, batch: list[TrainingRow]) -> None:
    if batch:
        writer.write_table(pa.Table.from_pylist([vars(row) for row in batch], schema=SCHEMA))
        batch.clear()


def open_table(path: Path) -> pa.Table:
    """The rows, memory-mapped. Columns: query, positive, negatives."""
    return pa.ipc.open_stream(pa.memory_map(str(path))).read_all()
