"""A record of a file, and one that cannot be used: what every reader gives."""

from dataclasses import dataclass
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


def check_text(text: str) -> str:
    """The text, if it is Unicode. Raises `ValueError` for half characters and bytes that are not UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"not valid Unicode at character {error.start + 1}") from error
    return text
