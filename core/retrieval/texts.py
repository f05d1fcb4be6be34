"""Texts with ids on disk, in the order in which they came: a corpus of any size takes a few bytes each."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from core.data.rows.remarks import FirstTexts, Remarks

_ROWS = 4096
_SCHEMA = pa.schema([("id", pa.large_string()), ("text", pa.large_string())])


class TextFile:
    """``remarks`` tell of ids that came again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._sink, _SCHEMA)
        self._waiting: list[dict[str, str]] = []
        self.remarks = Remarks()
        self._seen = FirstTexts("document", self.remarks)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, name: str, text: str) -> None:
        self._seen.is_first(name, text)
        self._count += 1
        self._waiting.append({"id": name, "text": text})
        if len(self._waiting) == _ROWS:
            self._flush()

    def has(self, name: str) -> bool:
        return self._seen.knows(name)

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.Table.from_pylist(self._waiting, schema=_SCHEMA))
            self._waiting.clear()

    def close(self) -> None:
        """Nothing is added any more; now it can be read."""
        self._flush()
        self._writer.close()
        self._sink.close()
        self._seen.forget()

    def texts(self) -> Iterator[str]:
        """All of them, one after the other."""
        with pa.memory_map(str(self._path)) as source:
            file = pa.ipc.open_file(source)
            for number in range(file.num_record_batches):
                yield from file.get_batch(number).column("text").to_pylist()

    def rows(self, begin: int, end: int) -> pa.Table:
        """Ids and texts of a span."""
        with pa.memory_map(str(self._path)) as source:
            # Taken out of the file, which is closed again.
            table = pa.ipc.open_file(source).read_all().slice(begin, end - begin)
            return pa.Table.from_pylist(table.to_pylist(), schema=_SCHEMA)
