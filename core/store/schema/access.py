"""Whose rows a caller may see and change: the one place of this rule.

``submit`` changes its own jobs, ``admin`` all. Reading is open to every key, unless REASON_PRIVATE_JOBS is
set: then a key without ``admin`` sees its own rows alone, and all others do not exist for it.
"""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, true

from core.errors import Forbidden
from core.store.schema.tables import Artifact, Job, Pipeline


@dataclass(frozen=True)
class Access:
    """The rights of one caller. ``owner`` is the id of its key; None without keys."""

    owner: str | None = None
    sees_all: bool = True
    changes_all: bool = True

    def visible(self, table: type[Job] | type[Artifact] | type[Pipeline]) -> ColumnElement[bool]:
        """The condition for rows that the caller may see."""
        return true() if self.sees_all else table.owner == self.owner

    def sees(self, row: Job | Artifact) -> bool:
        """Whether the caller may see a row."""
        return self.sees_all or row.owner == self.owner

    def may_change(self, row: Job | Pipeline | Artifact) -> bool:
        """Whether the caller may change the row: stop, retry, pin or delete it."""
        return self.changes_all or row.owner == self.owner

    def check_change(self, row: Job | Pipeline | Artifact) -> None:
        """Raises `Forbidden` unless the caller may change the row."""
        if not self.may_change(row):
            raise Forbidden(
                f"{type(row).__name__} {row.id} belongs to another API key. Use that key, or one with the "
                "scope admin."
            )


EVERYTHING = Access()
"""The rights of workers, of administrators, and of a service without keys."""
