"""Judgments as files: TREC's four columns, or BEIR's three."""

from collections.abc import Iterator
from pathlib import Path

import zstandard

from core.data.io.readers import open_text
from core.data.rows.row import Judgment
from core.errors import BadData
from core.native_errors import unreadable

_HEADING = ("query-id", "query_id", "qid", "query", "topic")


def read_qrels(path: Path, encoding: str | None) -> Iterator[Judgment]:
    """Every line as a judgment; BEIR's heading may be there or not. Raises `BadData`."""
    for number, line in enumerate(text_lines(path, encoding), 1):
        if not line.strip():
            continue
        cells = [cell.strip() for cell in (line.split("\t") if "\t" in line else line.split())]
        try:
            query, document, grade = cells if len(cells) == 3 else (cells[0], cells[2], cells[3])
            if not (number == 1 and query.lower() in _HEADING) and not _is_whole(grade):
                raise BadData(
                    f"{path.name}, line {number}: the grade is {grade!r}, and must be a whole number"
                )
            yield Judgment(query, document, int(float(grade)), path.name, number)
        except (ValueError, IndexError, OverflowError) as error:
            if number == 1 and cells[0].lower() in _HEADING:
                continue
            raise BadData(f"{path.name}, line {number}: query-id, corpus-id and score are needed") from error


def _is_whole(grade: str) -> bool:
    try:
        return float(grade).is_integer()
    except ValueError:
        return False


def text_lines(path: Path, encoding: str | None) -> Iterator[str]:
    """The lines of a text file, which may be compressed. Raises `BadData` where it is damaged."""
    try:
        with open_text(path, encoding) as file:
            yield from file
    except (OSError, EOFError, UnicodeError, zstandard.ZstdError) as error:
        raise unreadable(f"{path.name} breaks off or is damaged", error) from error
