"""Rows out of files: JSON, JSON Lines, CSV, TSV, Excel, Parquet and Arrow, plain or compressed. Streaming,
with line numbers.

A row that cannot be read is a `Reject`, not an exception: one bad line must not lose a million good ones.
"""

import codecs
import gzip
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import zstandard

from core.data.io.cells import csv_rows, excel_rows
from core.data.io.encodings import Undecodable
from core.data.io.json_lists import read_list
from core.data.rows.columns import PAIRS, QUERY_NAMES, TEXT_NAMES
from core.data.rows.reading import ReadingReport
from core.data.rows.row import Reject, Row, fault_of_names
from core.errors import BadData
from core.native_errors import unreadable

FORMATS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".xlsx": "excel",
    ".xlsm": "excel",
}
_COMPRESSED = (".gz", ".zst")
_HEAD = 1 << 16
_LONGEST_LINE = 64 << 20


def format_of(path: Path) -> str | None:
    """The format that the name's ending stands for, or None."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _COMPRESSED:
        suffixes.pop()
    return FORMATS.get(suffixes[-1]) if suffixes else None


def read_rows(
    path: Path,
    encoding: str | None = None,
    *,
    header: bool = True,
    report: ReadingReport | None = None,
) -> Iterator[Row | Reject]:
    """Every record of a file. Raises `BadData` when the file is missing or of no known format.

    ``encoding`` is that of text which is neither UTF-8 nor begins with a byte order mark. Without a
    ``header`` the columns of a table are called by their numbers, from 1.
    """
    if not path.exists():
        raise BadData(f"There is no file {path}")
    report = report if report is not None else ReadingReport()
    known = format_of(path)
    if not header and known not in ("csv", "tsv", "excel"):
        raise BadData(f"{path.name}: columns by number are for CSV, TSV and Excel files; give their names")
    match known:
        case "jsonl":
            return _jsonl(path, encoding)
        case "json":
            return _json(path, encoding)
        case "csv" | "tsv":
            return _csv(path, "," if known == "csv" else "\t", encoding, header, report)
        case "excel":
            return excel_rows(path, header=header, report=report)
        case "parquet":
            return _parquet(path)
        case "arrow":
            return _arrow(path)
    if path.suffix.lower() in (".xls", ".ods", ".numbers"):
        raise BadData(f"{path.name}: spreadsheets are read as .xlsx or CSV; save it as one of them")
    raise BadData(
        f"{path.name}: expected one of {', '.join(sorted(FORMATS))} (with .gz or .zst if compressed)"
    )


_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def open_bytes(path: Path) -> io.BufferedReader:
    """A file's bytes, decompressed where its name says so."""
    raw: Any
    if path.suffix.lower() == ".gz":
        raw = gzip.open(path, "rb")  # noqa: SIM115 - the buffer below owns it
    elif path.suffix.lower() == ".zst":
        raw = zstandard.open(path, "rb")
    else:
        raw = path.open("rb", buffering=0)
    return io.BufferedReader(raw, 1 << 18)


def open_text(path: Path, encoding: str | None = None) -> IO[str]:
    """Text of a file that may be compressed: UTF-8, or what a byte order mark or ``encoding`` says.

    A byte order mark is dropped, a bad byte is kept visible.
    """
    return as_text(open_bytes(path), encoding)


def as_text(raw: io.BufferedReader, encoding: str | None = None) -> IO[str]:
    """The text of an open file, decoded as `open_text` does."""
    head = raw.peek(4)
    marked = next((name for mark, name in _MARKS.items() if head.startswith(mark)), None)
    # What begins with FF FE 00 00 is UTF-32, and has UTF-16's mark in front.
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        marked = "utf-32"
    # Without a mark, UTF-16 and UTF-32 are what most machines write.
    unmarked = f"{encoding}-le" if encoding in ("utf-16", "utf-32") else encoding
    return io.TextIOWrapper(raw, marked or unmarked or "utf-8", errors="surrogateescape", newline="")


def _undecodable(path: Path, encoding: str | None) -> Undecodable:
    def head() -> bytes:
        with open_bytes(path) as file:
            return file.read(1 << 18)

    return Undecodable(path, encoding, head)


def _jsonl(path: Path, encoding: str | None) -> Iterator[Row | Reject]:
    undecodable = _undecodable(path, encoding)
    with _reading(path, encoding) as file:
        for number, line in enumerate(_lines(file, path), 1):
            if not line.strip():
                continue
            if problem := undecodable.problem(line):
                yield Reject(path.name, number, problem)
                continue
            try:
                values = json.loads(line)
            except ValueError as error:
                yield Reject(path.name, number, f"not JSON: {error}")
                continue
            except RecursionError:
                yield Reject(path.name, number, "nested too deeply")
                continue
            yield _object(path, number, values, "one JSON object a line is needed")


def _object(path: Path, number: int, values: Any, needed: str) -> Row | Reject:
    if isinstance(values, dict):
        if fault := fault_of_names(values):
            return Reject(path.name, number, fault)
        return Row(path.name, number, values)
    return Reject(path.name, number, f"{needed}, this is a {type(values).__name__}")


_HOLDS_LIST = re.compile(
    r'\s*\{\s*(?:"[^"]*"\s*:\s*(?:"[^"]*"|[-+.\w]+|\{[^{}]*\})\s*,\s*)*"[^"]*"\s*:\s*\[\s*\{', re.DOTALL
)
_RECORD_NAMES = (*QUERY_NAMES, *TEXT_NAMES, *(first for first, _ in PAIRS))
"""A JSON object that begins with one of them is a record, and no object that holds a list of records."""


def _is_list(head: str) -> bool:
    """Whether a JSON file that begins so holds one list of objects, and not an object a line."""
    if head.lstrip().startswith("["):
        return True
    first, _, rest = head.lstrip().partition("\n")
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        if rest:
            return True  # an object over several lines
    found = _HOLDS_LIST.match(head)
    return found is not None and not any(f'"{name}' in found[0] for name in _RECORD_NAMES)


def _head(file: IO[str], path: Path) -> str:
    try:
        return file.read(_HEAD)
    except UnicodeError as error:
        raise BadData(f"{path.name} is not the text that its encoding says: {error}") from error
    except (OSError, EOFError, zstandard.ZstdError) as error:
        raise unreadable(f"{path.name} breaks off or is damaged", error) from error


def _json(path: Path, encoding: str | None) -> Iterator[Row | Reject]:
    """A list of objects, alone or as the first list of an object; or JSON Lines under this name."""
    with _reading(path, encoding) as file:
        head = _head(file, path)
    if not _is_list(head):
        yield from _jsonl(path, encoding)
        return
    number = 0
    with _reading(path, encoding) as file:
        try:
            for number, values in enumerate(read_list(file), 1):
                yield _object(path, number, values, "a list of JSON objects is needed")
        except ValueError as error:
            raise BadData(f"{path.name} is not readable JSON after record {number}: {error}") from error
        except (OSError, EOFError, zstandard.ZstdError) as error:
            raise unreadable(f"{path.name} breaks off or is damaged", error) from error


def _csv(
    path: Path, delimiter: str, encoding: str | None, header: bool, report: ReadingReport
) -> Iterator[Row | Reject]:
    undecodable = _undecodable(path, encoding)
    with _reading(path, encoding) as file:
        yield from csv_rows(
            _lines(file, path), path, delimiter, undecodable.problem, header=header, report=report
        )


def _parquet(path: Path) -> Iterator[Row | Reject]:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=1024):
                yield from _records(batch, path, number)
                number += batch.num_rows
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise unreadable(f"{path.name} is not a readable Parquet file", error) from error


def _records(batch: Any, path: Path, number: int) -> Iterator[Row | Reject]:
    """A batch's rows. Times and dates become None: no reader uses them, and not all fit Python's types."""
    import pyarrow as pa

    if fault := fault_of_names(batch.schema.names):
        raise BadData(f"{path.name}: {fault}")
    kept = [field.name for field in batch.schema if not pa.types.is_temporal(field.type)]
    dropped = {field.name: None for field in batch.schema if pa.types.is_temporal(field.type)}
    batch = batch.select(kept)
    try:
        for place, values in enumerate(batch.to_pylist(), number + 1):
            yield Row(path.name, place, {**values, **dropped})
    except (ValueError, OverflowError):  # a row of them: which?
        for place in range(batch.num_rows):
            try:
                [values] = batch.slice(place, 1).to_pylist()
            except (ValueError, OverflowError) as error:
                yield Reject(path.name, number + place + 1, str(error))
            else:
                yield Row(path.name, number + place + 1, {**values, **dropped})


def _arrow(path: Path) -> Iterator[Row | Reject]:
    """What `datasets` saves: a stream of record batches, or an Arrow file."""
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as source:
            try:
                batches: Any = pa.ipc.open_stream(source)
            except pa.ArrowInvalid:
                file = pa.ipc.open_file(source)
                batches = (file.get_batch(index) for index in range(file.num_record_batches))
            number = 0
            for batch in batches:
                for start in range(0, batch.num_rows, 1024):
                    yield from _records(batch.slice(start, 1024), path, number + start)
                number += batch.num_rows
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise unreadable(f"{path.name} is not a readable Arrow file", error) from error


def _reading(path: Path, encoding: str | None) -> IO[str]:
    try:
        return open_text(path, encoding)
    except (OSError, EOFError, zstandard.ZstdError) as error:
        raise unreadable(f"{path.name} cannot be read, breaks off or is damaged", error) from error


def _lines(file: IO[str], path: Path) -> Iterator[str]:
    """The lines of a text, none of them endless."""
    try:
        while line := file.readline(_LONGEST_LINE):
            if len(line) == _LONGEST_LINE:
                raise BadData(
                    f"{path.name} has a line that is longer than {_LONGEST_LINE >> 20} Mi characters"
                )
            yield line
    except UnicodeError as error:
        raise BadData(f"{path.name} is not the text that its encoding says: {error}") from error
    except (OSError, EOFError, zstandard.ZstdError) as error:
        raise unreadable(f"{path.name} breaks off or is damaged", error) from error
