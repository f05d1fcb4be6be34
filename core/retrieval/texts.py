"""Texts with ids on disk, in the order in which they came: a corpus of any size takes a few bytes each."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from core.data.io.table_files import ArrowFile, map_arrow_file, read_batches
from core.data.rows.remarks import FirstTexts, Remarks

ID_AND_TEXT = pa.schema([("id", pa.large_string()), ("text", pa.large_string())])


class TextFile:
    """``remarks`` tell of ids that came again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = ArrowFile(path, ID_AND_TEXT)
        self.remarks = Remarks()
        self._seen = FirstTexts("document", self.remarks)

    def __len__(self) -> int:
        return self._file.rows

    def add(self, name: str, text: str) -> None:
        self._seen.is_first(name, text)
        self._file.add({"id": name, "text": text})

    def has(self, name: str) -> bool:
        return self._seen.knows(name)

    def close(self) -> None:
        """Nothing is added any more; now it can be read."""
        self._file.close()
        self._seen.forget()

    def texts(self) -> Iterator[str]:
        """All of them, one after the other."""
        for batch in read_batches(self._path):
            yield from batch.column("text").to_pylist()

    def rows(self, begin: int, end: int) -> pa.Table:
        """Ids and texts of a span."""
        # A copy: the table that is written does not depend on the batches of the file.
        return pa.Table.from_pylist(
            map_arrow_file(self._path).slice(begin, end - begin).to_pylist(), schema=ID_AND_TEXT
        )
