"""What an upload was found to be."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeGuard

from core.data.rows.record import TrainingRow
from core.data.rows.row import Reject
from core.data.rows.statistics import PREVIEW_ROWS, PREVIEW_SPLITS, Statistics, shortened

MOST_REJECTS_TOLD = 100


@dataclass
class Inspected:
    """What was found. ``splits`` has rows by split; ``columns`` are those of the first records.

    Of a tree of documents, ``ignored`` counts the files that are not read by the ending of their names, and
    ``empty`` the documents without text.
    """

    format: str
    splits: dict[str, int] = field(default_factory=dict)
    columns: list[str] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)  # the first ones
    rejected: int = 0
    statistics: Statistics = field(default_factory=Statistics)
    preview: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    ignored: dict[str, int] = field(default_factory=dict)
    empty: int = 0

    @property
    def rows(self) -> int:
        return sum(self.splits.values())

    def reject(self, found: Reject) -> None:
        self.rejected += 1
        if len(self.rejects) < MOST_REJECTS_TOLD:
            self.rejects.append(found)

    def keep(self, row: TrainingRow | Reject, split: str) -> TypeGuard[TrainingRow]:
        """Count a row of a split. Returns whether it is a good one."""
        if isinstance(row, Reject):
            self.reject(row)
            return False
        self.splits[split] += 1
        self.statistics.lengths["query"][len(row.query)] += 1
        self.statistics.lengths["positive"][len(row.positive)] += 1
        for text in row.negatives:
            self.statistics.lengths["negative"][len(text)] += 1
        return True

    def show(self, split: str, rows: Iterable[dict[str, Any]]) -> None:
        """Add rows to the preview of a split, which has the first `PREVIEW_ROWS` of the first splits."""
        if split not in self.preview and len(self.preview) == PREVIEW_SPLITS:
            return
        shown = self.preview.setdefault(split, [])
        if len(shown) < PREVIEW_ROWS:
            shown.extend(islice((shortened(row) for row in rows), PREVIEW_ROWS - len(shown)))
