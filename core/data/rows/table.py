"""Training rows on disk: an Arrow file that is memory-mapped, so that data may be larger than memory."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow as pa

from core.data.rows.record import TrainingRow
from core.data.rows.rejects import Rejects
from core.data.rows.row import Reject

SCHEMA = pa.schema(
    [
        ("query", pa.large_string()),
        ("positive", pa.large_string()),
        ("negatives", pa.large_list(pa.large_string())),
        ("scores", pa.large_list(pa.float32())),
        ("difficulty", pa.large_list(pa.string())),
    ]
)
_BATCH = 4096


def write_table(
    rows: Iterable[TrainingRow | Reject],
    path: Path,
    rejects_path: Path,
    max_reject_share: float,
    check_stop: Callable[[], None] = lambda: None,
) -> Rejects:
    """Writes the good rows to ``path`` and the bad ones' places and reasons to ``rejects_path``.

    Raises `BadData` when nothing is left, or more than ``max_reject_share`` of the rows is unreadable.
    """
    found = Rejects()
    batch: list[TrainingRow] = []
    with (
        pa.OSFile(str(path), "wb") as sink,
        pa.ipc.new_stream(sink, SCHEMA) as writer,
        rejects_path.open("w", encoding="utf-8") as rejects,
    ):
        for row in rows:
            if isinstance(row, Reject):
                found.add(row)
                rejects.write(json.dumps(vars(row)) + "\n")
                continue
            batch.append(row)
            found.kept += 1
            if len(batch) == _BATCH:
                _write(writer, batch)
                check_stop()
        _write(writer, batch)
    if found.count == 0:
        rejects_path.unlink()
    found.check(max_reject_share)
    return found


def _write(writer: pa.ipc.RecordBatchStreamWriter, batch: list[TrainingRow]) -> None:
    if batch:
        writer.write_table(pa.Table.from_pylist([vars(row) for row in batch], schema=SCHEMA))
        batch.clear()


def open_table(path: Path) -> pa.Table:
    """The rows, memory-mapped, with the columns of `SCHEMA`."""
    return pa.ipc.open_stream(pa.memory_map(str(path))).read_all()
