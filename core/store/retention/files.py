"""Folders of the artifact storage to which no row refers: not yet, or no longer.

Folders are addressed by their content, so a job may publish one again at the moment when it is about to be
removed. Hence the order: whoever wants a row to refer to a folder holds the folder first, then looks whether
all files are there, then adds the row, in one transaction with the end of the hold. Whoever removes a folder
marks it first, which fails while it is held and where a row refers to it.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, exists, select, update
from sqlalchemy.orm import Session

from core.errors import Unavailable
from core.store.schema.database import Database, hold_text
from core.store.schema.tables import Artifact, JobInput, LastVersion, UnreferencedFolder

HOLD_SECONDS = 900.0
"""From the look at the files to the row that refers to them; a longer one holds them anew."""

REST_SECONDS = 60.0
"""Between the deletion of the last row and the removal: longer than any transaction lives."""

_REMOVAL_SECONDS = 300.0
"""After so long without a sign whoever was removing a folder is taken for dead."""


_AT_ONCE = 500


class BeingRemoved(Unavailable):
    """The folder is just being removed; afterwards it can be made again."""


class NotHeld(Exception):
    """Nobody holds the folder any more: its files must be held and looked at again."""


_NOTED_SECONDS = 60 * 86_400.0


def run_folder_of(job_id: str) -> str:
    """The place of a job's run folder on each host that had it, relative to DATA_DIR."""
    return f"runs/{job_id}"


def note_deleted(database: Database, session: Session, job_id: str) -> None:
    """Remember for some weeks that a job was deleted, for the hosts that have files of it."""
    _keep(database, session, run_folder_of(job_id), _NOTED_SECONDS)


def keep_checkpoints(session: Session, place: str) -> bool:
    """Keep the checkpoints of a job that is tried again. False if they are just being removed."""
    row = session.get(UnreferencedFolder, place, with_for_update=True)
    if row is not None and row.removing:
        return False
    if row is not None:
        session.delete(row)
    return True


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
    if artifact.name is not None:
        hold_text(session, f"{artifact.kind}/{artifact.name}")
        last = session.get(LastVersion, (artifact.kind, artifact.name)) or LastVersion(
            kind=artifact.kind, name=artifact.name, version=0
        )
        last.version = max(last.version, artifact.version or 0)
        session.add(last)
    session.execute(delete(JobInput).where(JobInput.artifact_id == artifact.id))
    session.execute(delete(Artifact).where(Artifact.id == artifact.id))
    leave(database, session, artifact.uri)


def leave(database: Database, session: Session, uri: str) -> None:
    """Note that a row that referred to a folder is deleted. Another may refer to it still: who removes it
    looks, when all that is going on just now has ended."""
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

    def note_unknown(self, uris: Sequence[str], seconds: float) -> None:
        """Have folders removed after so long, unless a row refers to them by then."""
        for begin in range(0, len(uris), _AT_ONCE):
            with self._database.write() as session:
                for uri in uris[begin : begin + _AT_ONCE]:
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

    def go_on(self, removal: Removal) -> Removal | None:
        """Prolong the right to remove; None if another has it now: then nothing more may be removed."""
        with self._database.write() as session:
            until = session.scalar(select(self._database.time(_REMOVAL_SECONDS)))
            assert until is not None
            prolonged = (
                update(UnreferencedFolder)
                .where(
                    UnreferencedFolder.uri == removal.uri,
                    UnreferencedFolder.until == removal.until,
                    UnreferencedFolder.removing.is_(True),
                )
                .values(until=until)
                .returning(UnreferencedFolder.uri)
            )
            return Removal(removal.uri, until) if session.scalar(prolonged) else None

    def removed(self, removal: Removal) -> None:
        """The files are gone. Nothing if another has taken the removal over meanwhile."""
        with self._database.write() as session:
            session.execute(
                delete(UnreferencedFolder).where(
                    UnreferencedFolder.uri == removal.uri, UnreferencedFolder.until == removal.until
                )
            )

    def not_removed(self, removal: Removal, seconds: float) -> None:
        """The storage has refused: it is tried again after ``seconds``. Meanwhile the folder can be held."""
        with self._database.write() as session:
            session.execute(
                update(UnreferencedFolder)
                .where(UnreferencedFolder.uri == removal.uri, UnreferencedFolder.until == removal.until)
                .values(until=self._database.time(seconds), removing=False)
            )
