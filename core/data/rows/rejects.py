"""Counting bad rows, and saying when there are too many."""

from dataclasses import dataclass, field

from core.data.rows.row import Reject
from core.errors import BadData

_SHOWN = 5


@dataclass
class Rejects:
    """How many rows were kept and refused, and the first few of these.

    ``lines``: those of the files, where they are known (a line may become several rows), or passages.
    """

    kept: int = 0
    count: int = 0
    lines: int = 0
    examples: list[Reject] = field(default_factory=list)

    def add(self, reject: Reject) -> None:
        self.count += 1
        if len(self.examples) < _SHOWN:
            self.examples.append(reject)

    @property
    def read(self) -> int:
        """Lines, or, where nobody counted them, rows."""
        return max(self.lines or self.kept + self.count, self.count)

    def check(self, max_share: float) -> None:
        """Raises `BadData` when nothing is left, or more than ``max_share`` of the rows was refused."""
        shown = "; ".join(map(str, self.examples))
        if self.kept == 0:
            raise BadData(f"No row can be used. {shown}" if self.count else "The dataset is empty.")
        if self.count > max_share * self.read:
            raise BadData(
                f"{self.count} of {self.read} rows cannot be used, more than max_reject_share "
                f"({max_share:g}) allows. {shown}"
            )
