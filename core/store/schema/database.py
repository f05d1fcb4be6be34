"""One way to talk to SQLite and PostgreSQL: sessions, time, and errors of the database itself."""

import contextlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import (
    JSON,
    DateTime,
    Dialect,
    Engine,
    Interval,
    TypeDecorator,
    create_engine,
    event,
    func,
    literal,
    make_url,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.sql.elements import ColumnElement

from core.errors import Unavailable


class UtcTime(TypeDecorator[datetime]):
    """A moment in UTC. SQLite forgets time zones, so it is given naive UTC and gets its zone back."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None or dialect.name != "sqlite":
            return value
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class TypedJson(TypeDecorator[Any]):
    """A JSON column that holds a pydantic model, or a list or dict of them: rows have the models."""

    impl = JSON
    cache_ok = True

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self._adapter: TypeAdapter[Any] = TypeAdapter(model)

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        return self._adapter.dump_python(value, mode="json")

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        return self._adapter.validate_python(value)


class Database:
    """An engine and its two kinds of session: `read` and `write`."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._readers = sessionmaker(engine, expire_on_commit=False)
        self._writers = sessionmaker(engine.execution_options(begin_immediate=True), expire_on_commit=False)

    @property
    def sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    @contextlib.contextmanager
    def read(self) -> Iterator[Session]:
        """A session whose changes are never kept. Raises `Unavailable` when the database is away."""
        with _translated(), self._readers() as session:
            yield session

    @contextlib.contextmanager
    def write(self) -> Iterator[Session]:
        """One transaction: committed when the block ends, rolled back when it raises.

        On SQLite it takes the write lock at its start: a transaction that reads first and locks later
        fails at once with "database is locked" instead of waiting its turn.
        """
        with _translated(), self._writers.begin() as session:
            yield session
            for last in session.info.get(_AT_COMMIT, ()):
                last()

    def time(self, offset_seconds: float = 0.0) -> ColumnElement[datetime]:
        """The database's own clock, as an expression: workers' clocks may disagree, leases must not."""
        if self.sqlite:
            return literal(datetime.now(UTC) + timedelta(seconds=offset_seconds), UtcTime())
        clock = func.clock_timestamp(type_=UtcTime())
        if not offset_seconds:
            return clock
        return clock + func.make_interval(0, 0, 0, 0, 0, 0, float(offset_seconds), type_=Interval())

    def insert(self, table: type[Any]) -> Any:
        """An INSERT that knows ON CONFLICT: both databases have it, and SQLAlchemy a class for each."""
        return (sqlite if self.sqlite else postgresql).insert(table)

    def ping(self) -> None:
        """Raises `Unavailable` unless the database answers."""
        with self.read() as session:
            session.execute(text("SELECT 1"))


def hold_text(session: Session, what: str) -> None:
    """Hold a text until the transaction ends: another that wants to waits. SQLite has one writer anyway."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SELECT pg_advisory_xact_lock(hashtext(:what))"), {"what": what})


_AT_COMMIT = "at_commit"


def at_commit(session: Session, last: Callable[[], None]) -> None:
    """Call a function at the end of the transaction, before it is committed."""
    session.info.setdefault(_AT_COMMIT, []).append(last)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except PoolTimeout as error:
        raise Unavailable(f"Too many concurrent calls are waiting for the database: {error}") from error
    except DBAPIError as error:
        if isinstance(error, OperationalError) or error.connection_invalidated or _environment(error):
            raise Unavailable(_sentence(error)) from error
        raise


def _environment(error: DBAPIError) -> bool:
    """Whether the database is at fault and not the statement, though the type is no `OperationalError`."""
    state = getattr(error.orig, "sqlstate", None) or ""
    return state.startswith(_ENVIRONMENT_STATES) or any(text in str(error.orig) for text in _DAMAGED)


_ENVIRONMENT_STATES = ("08", "25006", "25P03", "53", "57P", "58", "XX001", "XX002")
"""PostgreSQL: connections, read-only, idled, resources, operators' acts, system errors, corruption."""
_DAMAGED = ("database disk image is malformed", "file is not a database")
"""SQLite's words for a damaged file."""
_FULL = ("database or disk is full", "No space left on device", "Disk quota exceeded")
_READ_ONLY = ("readonly database", "read-only transaction", "Read-only file system")


def _sentence(error: DBAPIError) -> str:
    """What happened and what helps."""
    first, text = _first_line(error), str(error.orig)
    if getattr(error.orig, "sqlstate", None) == "53100" or any(words in text for words in _FULL):
        return f"The database's disk is full. Free space there; the service then recovers by itself ({first})"
    if any(words in text for words in _READ_ONLY):
        return f"The database is read-only. Make it writable; the service then recovers by itself ({first})"
    if "disk I/O error" in text or "unable to open database file" in text:
        return f"The database's files cannot be read or written: check their disk and owner ({first})"
    if any(words in text for words in _DAMAGED) or getattr(error.orig, "sqlstate", None) in (
        "XX001",
        "XX002",
    ):
        return f"The database's files are damaged: restore a backup ({first})"
    if getattr(error.orig, "sqlstate", None) == "55P03":
        return f"Another transaction has locked the rows for {LOCK_SECONDS} s: retry later ({first})"
    if error.connection_invalidated:
        return f"The connection to the database was lost: {first}"
    return f"The database does not answer: {first}"


def _first_line(error: DBAPIError) -> str:
    return str(error.orig).strip().partition("\n")[0]


_POSTGRES_OPTIONS = {
    # A connection that is dead without a word is noticed in seconds: a lease must not run out meanwhile.
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 8000,
}


def open_database(url: str) -> Database:
    """Connects lazily. ``postgresql://`` means psycopg 3."""
    parsed = make_url(url)
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() == "sqlite":
        if parsed.database and parsed.database != ":memory:":
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(
            parsed,
            pool_size=20,
            max_overflow=40,  # one for every thread of the API: they wait for the lock, not for a connection
            connect_args={"timeout": 30, "check_same_thread": False},
        )
        _prepare_sqlite(engine)
    else:
        # A dead server must not hold a request, or a lease renewal, for minutes.
        engine = create_engine(
            parsed, pool_pre_ping=True, pool_size=10, max_overflow=20, connect_args=_POSTGRES_OPTIONS
        )
        _prepare_postgres(engine)
    return Database(engine)


IDLE_SECONDS = 20
"""The longest that a transaction of PostgreSQL waits for its client. Ours never wait: they hold rows that
others need."""

LOCK_SECONDS = 2 * IDLE_SECONDS
"""The longest that a statement waits for a lock: longer than a frozen client can keep one."""


def _prepare_postgres(engine: Engine) -> None:
    """A client that is frozen inside a transaction (SIGSTOP, a suspended machine) loses it, with its locks.

    Its system goes on answering keep-alives, so nothing else would ever end the transaction.
    """
    # One INSERT with many rows. psycopg's executemany is a pipeline that ends with a Flush message, and
    # PostgreSQL stops counting a transaction's idle time when one arrives: it would never end.
    engine.dialect.use_insertmanyvalues_wo_returning = True

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        before, connection.autocommit = connection.autocommit, True
        connection.execute(f"SET idle_in_transaction_session_timeout = '{IDLE_SECONDS}s'")
        connection.execute(f"SET lock_timeout = '{LOCK_SECONDS}s'")
        connection.autocommit = before


def _prepare_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves, below
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.execute("PRAGMA synchronous=FULL")  # what was answered with 201 survives a power cut
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        immediate = connection.get_execution_options().get("begin_immediate")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
