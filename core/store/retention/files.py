"""Folders of the artifact storage to which no row refers: not yet, or no longer.

Folders are addressed by their content, so a job may publish one again at the moment when it is about to be
removed. Hence the order: whoever wants a row to refer to a folder holds the folder first, then looks whether
all files are there, then adds the row, in one transaction with the end of the hold. Whoever removes a folder
marks it first, which fails while it is held and where a row refers to it.
"""

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, exists, select, update
from sqlalchemy.orm import Session

from core.errors import Unavailable
from core.store.schema.database import Database
from core.store.schema.tables import Artifact, JobInput, UnreferencedFolder

HOLD_SECONDS = 900.0
"""From the look at the files to the row that refers to them; a longer one holds them anew."""

REST_SECONDS = 60.0
"""Between the deletion of the last row and the removal: longer than any transaction lives."""

_REMOVAL_SECONDS = 3600.0
"""After so long whoever was removing a folder is taken for dead."""


_AT_ONCE = 500


class BeingRemoved(Unavailable):
    """The folder is just being removed; afterwards it can be made again."""


class NotHeld(Exception):
    """Nobody holds the folder any more: its files must be held and looked at again."""


@dataclass(frozen=True)
class Removal:
    """The right to remove a folder, until then."""

    uri: str
    until: datetime


def refer_to(session: Session, uri: str, token: str) -> None:
    """End the hold of a folder, to which a row refers from the same transaction on.

    ``token`` is that of the hold: after another one the files may be others than those that were looked at.
    Raises `NotHeld`.
    """
    held = delete(UnreferencedFolder).where(
        UnreferencedFolder.uri == uri,
        UnreferencedFolder.token == token,
        UnreferencedFolder.removing.is_(False),
    )
    if session.scalar(held.returning(UnreferencedFolder.uri)) is None:
        raise NotHeld(uri)


def forget(database: Database, session: Session, artifact: Artifact) -> None:
    """Delete the row of an artifact that nothing needs. Its folder goes later, unless another row has it."""
    session.execute(delete(JobInput).where(JobInput.artifact_id == artifact.id))
    session.execute(delete(Artifact).where(Artifact.id == artifact.id))
    leave(database, session, artifact.uri)


def leave(database: Database, session: Session, uri: str) -> None:
    """Note that a row that referred to a folder is deleted. Another may refer to it still."""
    if not session.scalar(select(exists().where(Artifact.uri == uri))):
        _keep(database, session, uri, REST_SECONDS)


def _keep(database: Database, session: Session, uri: str, seconds: float) -> str | None:
    """Keep a folder for that long, or longer if it was kept longer already.

    Returns the token of its row; None if it is being removed.
    """
    until = session.scalar(select(database.time(seconds)))
    values = {"uri": uri, "until": until, "removing": False, "token": secrets.token_hex(16)}
    row = database.insert(UnreferencedFolder).values(values)
    kept = row.on_conflict_do_update(
        index_elements=["uri"],
        set_={"until": until},
        where=UnreferencedFolder.removing.is_(False) & (UnreferencedFolder.until < until),
    )
    session.execute(kept)
    found = session.get(UnreferencedFolder, uri, populate_existing=True)
    return found.token if found is not None and not found.removing else None


class FolderStore:
    """The folders of the artifact storage as the database knows them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def hold(self, uri: str) -> str:
        """Keep a folder while its files are looked at and a row is added, which needs the token that this
        returns. Raises `BeingRemoved`."""
        with self._database.write() as session:
            token = _keep(self._database, session, uri, HOLD_SECONDS)
        if token is None:
            raise BeingRemoved(f"{uri} is just being removed: try again")
        return token

    def unknown(self, uris: Sequence[str]) -> list[str]:
        """Those that no row knows: what an attempt that died has left in the storage."""
        known = set[str]()
        with self._database.read() as session:
            for begin in range(0, len(uris), _AT_ONCE):
                some = uris[begin : begin + _AT_ONCE]
                known.update(session.scalars(select(Artifact.uri).where(Artifact.uri.in_(some))))
                rows = select(UnreferencedFolder.uri).where(UnreferencedFolder.uri.in_(some))
                known.update(session.scalars(rows))
        return sorted(set(uris) - known)

    def note_unknown(self, uris: Iterable[str], seconds: float) -> None:
        """Have folders removed after so long, unless a row refers to them by then."""
        for uri in uris:
            with self._database.write() as session:
                _keep(self._database, session, uri, seconds)

    def removable(self) -> list[str]:
        """Folders that could be removed now, for whoever only wants to look."""
        with self._database.read() as session:
            return list(
                session.scalars(
                    select(UnreferencedFolder.uri)
                    .where(
                        UnreferencedFolder.until < self._database.time(),
                        ~exists().where(Artifact.uri == UnreferencedFolder.uri),
                    )
                    .order_by(UnreferencedFolder.uri)
                )
            )

    def next_removal(self) -> Removal | None:
        """Mark one folder that nobody needs or holds as being removed."""
        due = UnreferencedFolder.until < self._database.time()
        with self._database.read() as session:  # the common case costs no write lock
            if not session.scalar(select(exists().where(due))):
                return None
        with self._database.write() as session:
            query = select(UnreferencedFolder).where(due).order_by(UnreferencedFolder.until)
            for row in session.scalars(query.limit(100).with_for_update(skip_locked=True)).all():
                if session.scalar(select(exists().where(Artifact.uri == row.uri))):
                    session.delete(row)
                    continue
                until = session.scalar(select(self._database.time(_REMOVAL_SECONDS)))
                assert until is not None
                row.removing, row.until = True, until
                return Removal(row.uri, until)
        return None

    def removed(self, removal: Removal) -> None:
        """The files are gone. Nothing if another has taken the removal over meanwhile."""
        with self._database.write() as session:
            session.execute(
                delete(UnreferencedFolder).where(
                    UnreferencedFolder.uri == removal.uri, UnreferencedFolder.until == removal.until
                )
            )

    def not_removed(self, removal: Removal, seconds: float) -> None:
        """The storage has refused: it is tried again after ``seconds``."""
        with self._database.write() as session:
            session.execute(
                update(UnreferencedFolder)
                .where(UnreferencedFolder.uri == removal.uri, UnreferencedFolder.until == removal.until)
                .values(until=self._database.time(seconds))
            )
