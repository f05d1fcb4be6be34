"""Rows into Arrow and Parquet files, a few thousand at a time, and back: data may be larger than memory."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

_BATCH_ROWS = 4096


class _BatchedFile:
    """Write rows in batches. The same rows in the same batches make the same bytes.

    Rows wait in memory. They are written when ``batch_rows`` of them wait, at `flush` and at `close`, each
    time as one batch. The file is complete and can be read after `close`, which the end of a ``with`` block
    calls. An exception in the block closes the file without the rows that still wait. ``on_full`` is called
    in place of `flush` when a batch is full, and must call `flush`.
    """

    def __init__(
        self,
        writer: Any,
        schema: pa.Schema,
        stack: ExitStack,
        *,
        batch_rows: int = _BATCH_ROWS,
        on_full: Callable[[], None] | None = None,
    ) -> None:
        """``stack`` closes the writer."""
        self._writer, self._schema, self._stack = writer, schema, stack
        self._batch_rows, self._on_full = batch_rows, on_full or self.flush
        self._tables: list[pa.Table] = []
        self._in_tables = 0
        self.waiting: list[dict[str, Any]] = []
        """Rows from `add` that are not written yet."""
        self.rows = 0
        """How many were added, written or not."""

    def add(self, row: dict[str, Any]) -> None:
        self.waiting.append(row)
        self.rows += 1
        if len(self.waiting) == self._batch_rows:
            self._on_full()

    def add_table(self, table: pa.Table) -> None:
        """Many rows at once, in the columns of the schema. A batch may have more than ``batch_rows``."""
        self._collect()
        self._tables.append(table)
        self._in_tables += table.num_rows
        self.rows += table.num_rows
        if self._in_tables >= self._batch_rows:
            self._on_full()

    def flush(self) -> None:
        """Write the waiting rows as one batch; none if no row waits."""
        self._collect()
        if self._tables:
            tables, self._tables, self._in_tables = self._tables, [], 0
            self._writer.write_table(pa.concat_tables(tables))

    def _collect(self) -> None:
        if self.waiting:
            rows, self.waiting = self.waiting, []
            self._tables.append(pa.Table.from_pylist(rows, schema=self._schema))
            self._in_tables += len(rows)

    def close(self) -> None:
        """Write what waits, and the end of the file. A second call does nothing."""
        try:
            self.flush()
        finally:
            self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._stack.close()


class ArrowFile(_BatchedFile):
    """An Arrow IPC file, each batch of which is a record batch: `map_arrow_file`, `read_batches`.

    ``stream``: in the streaming format, which has no directory of its batches at its end: `map_arrow_stream`.
    """

    def __init__(
        self,
        path: Path,
        schema: pa.Schema,
        *,
        batch_rows: int = _BATCH_ROWS,
        on_full: Callable[[], None] | None = None,
        stream: bool = False,
    ) -> None:
        stack = ExitStack()
        sink = stack.enter_context(pa.OSFile(str(path), "wb"))
        writer = stack.enter_context((pa.ipc.new_stream if stream else pa.ipc.new_file)(sink, schema))
        super().__init__(writer, schema, stack, batch_rows=batch_rows, on_full=on_full)


class ParquetFile(_BatchedFile):
    """A Parquet file, each batch of which is a row group. The folder is made where there is none."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        stack = ExitStack()
        writer = stack.enter_context(pq.ParquetWriter(path, schema, compression="zstd"))
        super().__init__(writer, schema, stack)


def map_arrow_file(path: Path) -> pa.Table:
    """The rows of an Arrow file, memory-mapped for as long as the table lives."""
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def map_arrow_stream(path: Path) -> pa.Table:
    """As `map_arrow_file`, of a file in the streaming format."""
    return pa.ipc.open_stream(pa.memory_map(str(path))).read_all()


def read_batches(path: Path) -> Iterator[pa.RecordBatch]:
    """The batches of an Arrow file, read one at a time: nothing of them is mapped or kept."""
    with pa.OSFile(str(path), "rb") as source:
        file = pa.ipc.open_file(source)
        for index in range(file.num_record_batches):
            yield file.get_batch(index)
