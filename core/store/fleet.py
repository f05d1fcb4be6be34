"""Workers and API keys."""

import hashlib
import hmac
import secrets
from dataclasses import dataclass

from sqlalchemy import delete, exists, func, select, update
from sqlalchemy.orm import Session

from core.errors import NotFound
from core.ids import new_id
from core.jobs.hosts import Gpu
from core.jobs.state import JobState
from core.spec.parts.forms import API_KEY, KEY_ID, matches
from core.store.schema.database import Database
from core.store.schema.tables import ApiKey, Job, Worker

SCOPES = ("read", "submit", "admin")
"""From the weakest to the strongest."""


@dataclass(frozen=True)
class Inventory:
    """What a worker has."""

    host: str
    slots: int
    gpus: list[Gpu]
    memory_bytes: int
    queues: list[str]


def alive_workers(database: Database, session: Session, seconds: float) -> list[tuple[Worker, int]]:
    """Workers heard of within ``seconds``, each with the number of jobs it runs."""
    running = (
        select(func.count()).where(Job.worker == Worker.id, Job.state == JobState.RUNNING).scalar_subquery()
    )
    query = select(Worker, running).where(Worker.heartbeat_at > database.time(-seconds)).order_by(Worker.id)
    return [(worker, count) for worker, count in session.execute(query)]


class WorkerStore:
    """Liveness is the last heartbeat written here, never a broker's ping."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def register(self, inventory: Inventory) -> str:
        worker_id = new_id(f"wrk_{inventory.host}"[:200])
        with self._database.write() as session:
            now = session.scalar(select(self._database.time()))
            assert now is not None
            session.add(
                Worker(id=worker_id, **vars(inventory), started_at=now, heartbeat_at=now, stopping=False)
            )
            session.execute(delete(Worker).where(Worker.heartbeat_at < self._database.time(-7 * 86_400)))
        return worker_id

    def heartbeat(self, worker_id: str, *, gpus: list[Gpu], stopping: bool = False) -> None:
        with self._database.write() as session:
            session.execute(
                update(Worker)
                .where(Worker.id == worker_id)
                .values(heartbeat_at=self._database.time(), gpus=gpus, stopping=stopping)
            )

    def remove(self, worker_id: str) -> None:
        with self._database.write() as session:
            session.execute(delete(Worker).where(Worker.id == worker_id))

    def alive(self, seconds: float) -> list[tuple[Worker, int]]:
        """Workers heard of within ``seconds``, each with the number of jobs it runs."""
        with self._database.read() as session:
            return alive_workers(self._database, session, seconds)


class KeyStore:
    """API keys. Only a key's hash is stored; the key itself is shown once."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, name: str, scopes: list[str]) -> tuple[ApiKey, str]:
        """Returns (row, key)."""
        key_id = new_id("key")
        secret = f"{key_id}.{secrets.token_urlsafe(32)}"
        with self._database.write() as session:
            now = session.scalar(select(self._database.time()))
            row = ApiKey(
                id=key_id,
                name=name,
                sha256=hash_of_secret(secret),
                scopes=scopes,
                created_at=now,
                revoked_at=None,
            )
            session.add(row)
        return row, secret

    def check(self, secret: str) -> ApiKey | None:
        """The key's row, or None when it is unknown, revoked, or no key by its form."""
        if not matches(API_KEY, secret):
            return None
        with self._database.read() as session:
            row = session.get(ApiKey, secret.partition(".")[0])
        # Compared also where there is no row: the time does not tell whether an id exists.
        right = hmac.compare_digest(row.sha256 if row else hash_of_secret(""), hash_of_secret(secret))
        return row if row is not None and row.revoked_at is None and right else None

    def active(self, key_id: str) -> ApiKey | None:
        """The key's row, or None when it is unknown or revoked."""
        with self._database.read() as session:
            row = session.get(ApiKey, key_id)
        return row if row is not None and row.revoked_at is None else None

    def any_active(self) -> bool:
        with self._database.read() as session:
            return bool(session.scalar(select(exists().where(ApiKey.revoked_at.is_(None)))))

    def all(self) -> list[ApiKey]:
        with self._database.read() as session:
            return list(session.scalars(select(ApiKey).order_by(ApiKey.id)))

    def revoke(self, key_id: str) -> ApiKey:
        """Raises `NotFound`. Revoking twice is no error."""
        if not matches(KEY_ID, key_id):
            raise NotFound(f"API key not found: {key_id!r}")
        with self._database.write() as session:
            row = session.get(ApiKey, key_id)
            if row is None:
                raise NotFound(f"API key not found: {key_id!r}")
            if row.revoked_at is None:
                row.revoked_at = session.scalar(select(self._database.time()))
            return row


def hash_of_secret(text: str) -> str:
    """What is stored of a key or of a session's token."""
    return hashlib.sha256(text.encode()).hexdigest()
