"""Rows out of files: JSON Lines, CSV, TSV and Parquet, plain or compressed. Streaming, with line numbers.

A row that cannot be read is a `Reject`, not an exception: one bad line must not lose a million good ones.
"""

import csv
import gzip
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import zstandard

from core.errors import BadData

FORMATS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
_COMPRESSED = (".gz", ".zst")
_MAX_FIELD = 64 << 20


@dataclass(frozen=True)
class Row:
    """One record and where it stands: file and line (from 1; for Parquet the row's number)."""

    file: str
    line: int
    values: dict[str, Any]


@dataclass(frozen=True)
class Reject:
    """A record that cannot be used, and why."""

    file: str
    line: int
    reason: str

    def __post_init__(self) -> None:
        # A reason may quote what is wrong; it must be writable all the same.
        object.__setattr__(self, "reason", self.reason.encode("utf-8", "backslashreplace").decode())


def check_text(text: str) -> str:
    """The text, if it is Unicode. Raises `ValueError` for half characters and bytes that are not UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"not valid Unicode at character {error.start + 1}") from error
    return text


def format_of(path: Path) -> str | None:
    """The format that the name's ending stands for, or None."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _COMPRESSED:
        suffixes.pop()
    return FORMATS.get(suffixes[-1]) if suffixes else None


def read_rows(path: Path) -> Iterator[Row | Reject]:
    """Every record of a file. Raises `BadData` when the file is missing or of no known format."""
    if not path.exists():
        raise BadData(f"There is no file {path}")
    match format_of(path):
        case "jsonl":
            return _jsonl(path)
        case "csv":
            return _csv(path, ",")
        case "tsv":
            return _csv(path, "\t")
        case "parquet":
            return _parquet(path)
    raise BadData(
        f"{path.name}: expected one of {', '.join(sorted(FORMATS))} (with .gz or .zst if compressed)"
    )


def open_text(path: Path) -> IO[str]:
    """Text of a file that may be compressed; a byte order mark is dropped, a bad byte is kept visible."""
    raw: Any
    if path.suffix.lower() == ".gz":
        raw = gzip.open(path, "rb")  # noqa: SIM115 - the text wrapper below owns it
    elif path.suffix.lower() == ".zst":
        raw = zstandard.open(path, "rb")
    else:
        raw = path.open("rb")
    return io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="")


def _jsonl(path: Path) -> Iterator[Row | Reject]:
    with _reading(path) as file:
        for number, line in enumerate(_lines(file, path), 1):
            if not line.strip():
                continue
            try:
                values = json.loads(line)
            except ValueError as error:
                yield Reject(path.name, number, f"not JSON: {error}")
                continue
            except RecursionError:
                yield Reject(path.name, number, "nested too deeply")
                continue
            if isinstance(values, dict):
                yield Row(path.name, number, values)
            else:
                kind = type(values).__name__
                yield Reject(path.name, number, f"one JSON object a line is needed, this is a {kind}")


def _csv(path: Path, delimiter: str) -> Iterator[Row | Reject]:
    csv.field_size_limit(_MAX_FIELD)
    with _reading(path) as file:
        reader = csv.DictReader(_lines(file, path), delimiter=delimiter, strict=True)
        try:
            columns = reader.fieldnames or []  # reads the header, so that the lines below are counted right
        except csv.Error as error:
            raise BadData(f"{path.name}, line 1: not CSV: {error}") from error
        while True:
            line = reader.line_num + 1
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if "unexpected end of data" in str(error):
                    raise BadData(
                        f"{path.name}: a quote that is opened at or after line {line} is never closed, so "
                        "that nothing behind it can be read"
                    ) from error
                yield Reject(path.name, line, f"not CSV: {error}")
                continue
            if None in values or None in values.values():
                yield Reject(path.name, line, f"{len(columns)} columns are needed")
            else:
                yield Row(path.name, line, values)


def _parquet(path: Path) -> Iterator[Row | Reject]:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=1024):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(path.name, number, values)
    except (pa.ArrowException, OSError) as error:
        raise BadData(f"{path.name} is not a readable Parquet file: {error}") from error


def _reading(path: Path) -> IO[str]:
    try:
        return open_text(path)
    except OSError as error:
        raise BadData(f"{path}: {error}") from error


def _lines(file: IO[str], path: Path) -> Iterator[str]:
    try:
        yield from file
    except (OSError, EOFError, zstandard.ZstdError) as error:
        raise BadData(f"{path.name} breaks off or is damaged: {error}") from error
