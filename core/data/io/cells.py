"""Rows out of tables of cells: CSV and TSV in the dialects that spreadsheets write, and Excel workbooks."""

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import date, datetime, time
from itertools import chain
from pathlib import Path
from typing import Any

from core.data.rows.reading import SHORT_ROWS, ReadingReport
from core.data.rows.row import Reject, Row, fault_of_names
from core.errors import BadData
from core.native_errors import unreadable

_MAX_FIELD = 64 << 20
_DELIMITERS = ",;\t|"
_SEPARATOR = re.compile(r'^"?sep=(.)"?\s*$', re.IGNORECASE)
_ERRORS = frozenset({"#N/A", "#VALUE!", "#REF!", "#NAME?", "#DIV/0!", "#NUM!", "#NULL!"})


class Header:
    """The names of a table's columns. Without a header a column is called by its number, from 1."""

    def __init__(self, cells: list[str], path: Path) -> None:
        self.names = [cell.strip() for cell in cells]
        self._named = max((place for place, name in enumerate(self.names, 1) if name), default=0)
        named = [name for name in self.names if name]
        if twice := {name for name in named if named.count(name) > 1}:
            raise BadData(f"{path.name}: the column {', '.join(sorted(twice))} comes twice")

    def row(self, path: Path, line: int, cells: list[Any], report: ReadingReport) -> Row | Reject:
        """The record of a line. Cells missing at its end are empty; superfluous empty ones are dropped."""
        while len(cells) > len(self.names) and cells[-1] in ("", None):
            cells = cells[:-1]
        if len(cells) > len(self.names):
            return Reject(
                path.name, line, f"{len(cells)} cells, and the header has {len(self.names)} columns"
            )
        if len(cells) < len(self.names):
            if len(cells) < self._named:
                report.counts[SHORT_ROWS] += 1
            cells = [*cells, *[None] * (len(self.names) - len(cells))]
        values = {}
        for number, (name, cell) in enumerate(zip(self.names, cells, strict=True), 1):
            if name:
                values[name] = cell
            elif cell not in ("", None):
                values[f"column {number}"] = cell  # under no name: said, not read
        return Row(path.name, line, values, cells=True)


def csv_rows(
    lines: Iterator[str],
    path: Path,
    delimiter: str,
    problem_of: Callable[..., str | None],
    *,
    header: bool,
    report: ReadingReport,
) -> Iterator[Row | Reject]:
    """Every record of a text of delimited cells. Raises `BadData` for a header that cannot be one.

    ``problem_of`` tells what is wrong with the encoding of cells. Names of columns that are not Unicode are a
    reject and not an exception: the format is guessed before the spec's encoding is known.
    """
    csv.field_size_limit(_MAX_FIELD)
    skipped, first = _first_line(lines)
    if marked := _SEPARATOR.match(first):  # Excel's own line, which names the delimiter
        delimiter = marked[1]
        more, first = _first_line(lines)
        skipped += more
    else:
        delimiter = _delimiter(first, delimiter)
    reader = csv.reader(chain([first], lines), delimiter=delimiter, strict=True)
    names: Header | None = None
    while True:
        line = reader.line_num + skipped
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "unexpected end of data" in str(error):
                raise BadData(
                    f"{path.name}: a quote that is opened at or after line {line} is never closed, so "
                    "that nothing behind it can be read"
                ) from error
            if names is None and header:
                raise BadData(f"{path.name}, line {line}: not CSV: {error}") from error
            yield Reject(path.name, line, f"not CSV: {error}")
            continue
        if not cells:
            continue
        if problem := problem_of(*cells) or (fault_of_names(cells) if names is None and header else None):
            yield Reject(path.name, line, problem)
            if names is None and header:
                return
            continue
        if names is None:
            names = Header(cells if header else [str(number + 1) for number in range(len(cells))], path)
            if header:
                continue
        yield names.row(path, line, list(cells), report)


def _first_line(lines: Iterator[str]) -> tuple[int, str]:
    """The first line that is not empty, and its number."""
    number = 0
    for number, line in enumerate(lines, 1):
        if line.strip():
            return number, line
    return number, ""


def _delimiter(header: str, usual: str) -> str:
    """The delimiter that a header line has most of, outside quotes; the usual one where it has any."""
    counts = Counter(re.sub(r'"[^"]*"', "", header))
    if counts[usual]:
        return usual
    most = max(_DELIMITERS, key=lambda mark: counts[mark])
    return most if counts[most] else usual


def excel_rows(path: Path, *, header: bool, report: ReadingReport) -> Iterator[Row | Reject]:
    """Every record of a workbook's first sheet that has cells; other sheets are reported as not used.

    Raises `BadData` for what is no workbook, or an encrypted one.
    """
    from zipfile import BadZipFile

    from openpyxl import load_workbook
    from openpyxl.utils.exceptions import InvalidFileException

    try:
        book = load_workbook(path, read_only=True, data_only=True)
    except (BadZipFile, InvalidFileException, KeyError, ValueError, OSError, EOFError) as error:
        raise unreadable(
            f"{path.name} is not a readable Excel workbook (.xlsx), or is protected by a password", error
        ) from error
    try:
        sheets = [sheet for sheet in book.worksheets if _has_cells(sheet)]
        if not sheets:
            return
        for other in sheets[1:]:
            name = f"{path.name}: sheet {other.title}"
            if name not in report.files:
                report.files.append(name)
        names: Header | None = None
        for line, cells in enumerate(sheets[0].iter_rows(values_only=True), 1):
            values = [_cell(cell) for cell in cells]
            if all(value is None for value in values):
                continue
            if names is None:
                texts = ["" if value is None else str(value) for value in values]
                names = Header(texts if header else [str(n + 1) for n in range(len(texts))], path)
                if header:
                    continue
            yield names.row(path, line, values, report)
    except (BadZipFile, KeyError, ValueError, OSError, EOFError) as error:
        raise unreadable(f"{path.name} is a damaged Excel workbook", error) from error
    finally:
        book.close()


def _has_cells(sheet: Any) -> bool:
    rows: Iterable[tuple[Any, ...]] = sheet.iter_rows(values_only=True, max_row=100)
    return any(cell is not None for row in rows for cell in row)


def _cell(value: Any) -> Any:
    """A cell as a text or a number. A spreadsheet's errors are empty cells, dates are ISO 8601."""
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, str) and (value in _ERRORS or not value.strip()):
        return None
    return value
