"""How a source is read, and what the readers report beside its rows."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from core.data.rows.remarks import Irregularity, Level, Remarks
from core.spec.parts.rows import ColumnName, Labels, RowOptions

_LISTED = 12

_AMBIGUOUS = ("ids with several texts", "ids repeated in a domain with another text")
"""Labels of counts."""

NUMBERS, LISTS = "numbers read as texts", "cells read as lists"
NO_VALUES = "cells that stand for no value"
SHORT_ROWS = "rows with missing cells at their end"
_COUNTED = {
    NUMBERS: "{} texts are numbers in the file, and were read as texts.",
    NO_VALUES: "{} cells of texts hold a word for no value (NaN, null, None, N/A), and were read as empty.",
    LISTS: "{} cells hold lists as text, and were read as lists.",
    SHORT_ROWS: "{} rows have fewer cells than the header; those cells are empty.",
}
"""Counts that a notice tells, by their label."""

TEXT_ROLES = ("query", "positive", "negatives", "instruction", "label", "score")
"""Roles that every job uses which trains or evaluates on rows."""


@dataclass
class ReadingReport:
    """What became of a source's columns, labels, sheets and files.

    ``columns`` are the columns read, by role; ``unused`` counts the rows that have a column without a role;
    ``counts`` are numbers of pairs and ids by what was done with them; ``notes`` are sentences for the user;
    ``records`` are the lines of files of rows, each of which may become several rows.
    """

    columns: dict[str, dict[str, None]] = field(default_factory=dict)
    unused: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    files: list[str] = field(default_factory=list)
    notes: dict[str, Level] = field(default_factory=dict)
    remarks: Remarks = field(default_factory=Remarks)
    records: int = 0

    def used(self, role: str, column: str) -> None:
        self.columns.setdefault(role, {})[column] = None

    def without(self, *roles: str) -> None:
        """The columns of these roles turned out to be of no use."""
        for role in roles:
            self.unused.update(self.columns.pop(role, ()))

    def note(self, sentence: str, level: Level = "info") -> None:
        """Add a sentence, once."""
        self.notes.setdefault(sentence, level)

    def sentences(self, source: str, roles: Iterable[str]) -> list[tuple[str, Level]]:
        """What a job that uses these ``roles`` tells its user of the source, each with its level.

        Columns without a role, and columns whose role the job does not use, are named in one sentence.
        """
        wanted = set(roles)
        unused = dict.fromkeys(self.unused)
        for role, columns in self.columns.items():
            if role not in wanted:
                unused |= dict.fromkeys(columns)
        told: list[tuple[str, Level]] = [(f"{source}: {note}", level) for note, level in self.notes.items()]
        told += [(f"{source}: {sentence}", level) for sentence, level in self.irregularities()]
        if unused:
            told.append((f"{source}: columns that are not used: {_listed(unused)}.", "info"))
        if self.files:
            told.append((f"{source}: files that this job does not read: {_listed(self.files)}.", "info"))
        told += [
            (f"{source}: {said.format(count)}", "info")
            for label, said in _COUNTED.items()
            if (count := self.counts.get(label))
        ]
        return told

    def irregularities(self) -> Iterator[tuple[str, Level]]:
        """A sentence and its level for each kind of id that came twice."""
        yield from self.remarks.sentences()
        for label in _AMBIGUOUS:
            if self.counts[label] and not self.remarks.count(Irregularity.DOCUMENT_CONFLICT):
                yield f"{label}: {self.counts[label]:,}. The first text of an id is used.", "warning"


def _listed(names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - _LISTED} more" if len(every) > _LISTED else ""
    return ", ".join(every[:_LISTED]) + more


@dataclass
class Reading:
    """How to read a source, where it does not have the usual form. ``report`` grows while it is read.

    ``graded``: a pair's label or score is what a loss learns, and no pair is left out for it. ``labels`` may
    be ``defer``, which no spec says: every pair is counted, and what its label means is asked later.
    """

    split: str | None = None
    columns: dict[str, ColumnName] = field(default_factory=dict)
    labels: Literal["auto", "ignore", "defer"] | Labels = "auto"
    encoding: str | None = None
    graded: bool = False
    long: bool = False  # BRIGHT's whole pages
    reasonir: bool | None = None  # None: decided by the first records
    corpus: Path | None = None
    report: ReadingReport = field(default_factory=ReadingReport)

    @classmethod
    def of(cls, options: RowOptions, split: str | None = None, *, graded: bool = False) -> "Reading":
        """The reading that a spec asks for."""
        return cls(
            split,
            {str(role): name for role, name in options.columns.items()},
            options.labels,
            options.encoding,
            graded,
        )

    def quietly(self) -> "Reading":
        """The same reading with a report of its own, for a look at the source that nobody is told of."""
        return replace(self, report=ReadingReport())

    @property
    def counts(self) -> Counter[str]:
        return self.report.counts

    @property
    def header(self) -> bool:
        """Whether files have a header: columns given by number mean that there is none."""
        return not any(isinstance(name, int) for name in _names(self.columns))


def _names(columns: dict[str, ColumnName]) -> list[str | int]:
    return [name for found in columns.values() for name in (found if isinstance(found, list) else [found])]
