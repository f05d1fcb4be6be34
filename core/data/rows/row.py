"""What readers give: a record of a file, one that cannot be used, and a judgment."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Row:
    """One record and its place: file and line (from 1; for Parquet, Arrow and JSON lists its number).

    ``cells``: the values are cells of a table, which can hold a list only as text.
    """

    file: str
    line: int
    values: dict[str, Any]
    cells: bool = False


@dataclass(frozen=True)
class Reject:
    """A record that cannot be used, and why."""

    file: str
    line: int
    reason: str

    def __post_init__(self) -> None:
        # A reason may quote what is wrong; it must be writable all the same.
        object.__setattr__(self, "reason", self.reason.encode("utf-8", "backslashreplace").decode())

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}: {self.reason}"


@dataclass(frozen=True)
class Judgment:
    """A line of the qrels, and where it stands."""

    query: str
    document: str
    grade: int
    file: str
    line: int

    def within(self, prefix: str) -> "Judgment":
        """The same judgment with the prefix of a domain before its ids."""
        if not prefix:
            return self
        return replace(self, query=prefix + self.query, document=prefix + self.document)


def check_text(text: str) -> str:
    """The text, if it is Unicode. Raises `ValueError` for half characters and bytes that are not UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"not valid Unicode at character {error.start + 1}") from error
    return text


def fault_of_names(names: Iterable[str]) -> str | None:
    """What is wrong with the names of columns: they go into manifests and database rows."""
    for name in names:
        if "\0" in name:
            return f"the name of column {name!r} has the character NUL (U+0000)"
        try:
            check_text(name)
        except ValueError as error:
            return f"the name of column {name!r} is {error}"
    return None
