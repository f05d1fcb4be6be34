"""Texts by id, on disk: a corpus of any size takes a few megabytes of memory."""

import sqlite3
from collections.abc import Container, Iterable
from types import TracebackType

_CACHE_KIB = 16_384


class Texts:
    """Texts under (domain, id), in a private database that is gone when it is closed.

    The first text of a name counts. ``repeated`` counts those that came again in a domain with another text.
    """

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)  # "": a temporary file of SQLite's own
        self._database.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute(
            "CREATE TABLE texts (id TEXT, domain TEXT, text TEXT, PRIMARY KEY (id, domain)) WITHOUT ROWID"
        )
        self.repeated = 0

    def add(
        self, found: Iterable[tuple[str, str]], domain: str = "", wanted: Container[str] | None = None
    ) -> None:
        """Every (id, text) of which the id is ``wanted``."""
        self._database.execute("BEGIN")
        for name, text in found:
            if wanted is None or name in wanted:
                inserted = self._database.execute(
                    "INSERT INTO texts VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (name, domain, text)
                )
                if not inserted.rowcount and self.of(name, domain) != [text]:
                    self.repeated += 1
        self._database.execute("COMMIT")

    def of(self, name: str, domain: str | None = None) -> list[str]:
        """The different texts of an id, in one domain or in all."""
        query = "SELECT DISTINCT text FROM texts WHERE id = ?"
        if domain is None:
            rows = self._database.execute(query, (name,))
        else:
            rows = self._database.execute(f"{query} AND domain = ?", (name, domain))
        return [text for (text,) in rows]

    def ambiguous(self) -> int:
        """How many ids have different texts in different domains."""
        query = "SELECT count(*) FROM (SELECT id FROM texts GROUP BY id HAVING count(DISTINCT text) > 1)"
        return int(self._database.execute(query).fetchone()[0])

    def __enter__(self) -> "Texts":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()
