"""Training rows on disk: an Arrow file that is memory-mapped, so that data may be larger than memory."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow as pa

from core.data.io.stopping import checked, no_stop
from core.data.io.table_files import ArrowFile, map_arrow_stream
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


def write_table(
    rows: Iterable[TrainingRow | Reject],
    path: Path,
    rejects_path: Path,
    max_reject_share: float,
    check_stop: Callable[[], None] = no_stop,
) -> Rejects:
    """Writes the good rows to ``path`` and the bad ones' places and reasons to ``rejects_path``.

    Raises `BadData` when nothing is left, or more than ``max_reject_share`` of the rows is unreadable.
    """
    found = Rejects()
    with (
        ArrowFile(path, SCHEMA, stream=True) as file,
        rejects_path.open("w", encoding="utf-8") as rejects,
    ):
        for row in checked(rows, check_stop):
            if isinstance(row, Reject):
                found.add(row)
                rejects.write(json.dumps(vars(row)) + "\n")
                continue
            file.add(vars(row))
            found.kept += 1
    if found.count == 0:
        rejects_path.unlink()
    found.check(max_reject_share)
    return found


def open_table(path: Path) -> pa.Table:
    """The rows, memory-mapped, with the columns of `SCHEMA`."""
    return map_arrow_stream(path)
