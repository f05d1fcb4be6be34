"""A database whose disk is full, read-only or damaged: `Unavailable` with a remedy; afterwards it works."""

import contextlib
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
import sqlalchemy
from psycopg import errors as postgres

from core.errors import Unavailable
from core.jobs.events import Event, EventType
from core.settings import Settings
from core.spec import parse_spec
from core.store import Store, open_store
from core.store.attempts.leases import Capacity
from core.store.attempts.progress import ProgressUpdate
from core.store.new_jobs import NewJob
from core.store.schema.database import open_database
from core.store.schema.tables import Metric
from migrations import upgrade
from tests.conftest import postgres_server
from tests.disks import Disk, mounted
from tests.faults.service import until

SPEC = parse_spec({"kind": "train", "base_model": "o/m", "dataset": "file:x"})


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with mounted(tmp_path / "disk", "2m") as made:
        yield made


def opened(settings: Settings, url: str) -> Store:
    upgrade(url)
    return open_store(settings.model_copy(update={"database_url": url}))


def submit_until_full(store: Store) -> Unavailable:
    """Pages that are half empty take some more rows."""
    for _ in range(10_000):
        try:
            store.jobs.submit(NewJob(spec=SPEC))
        except Unavailable as error:
            return error
    pytest.fail("the disk is not full")


def test_sqlite_on_a_full_disk(disk, settings):
    store = opened(settings, f"sqlite:///{disk.folder / 'reason.db'}")
    store.jobs.submit(NewJob(spec=SPEC))
    claim = store.leases.claim(Capacity(worker="w"), 30)
    disk.fill()
    assert "disk is full. Free space there" in str(submit_until_full(store))
    store.database.ping()  # it can still be read
    disk.free()
    store.leases.renew(claim, 30)
    store.jobs.submit(NewJob(spec=SPEC))
    store.close()


def test_sqlite_on_a_read_only_disk(disk, settings):
    store = opened(settings, f"sqlite:///{disk.folder / 'reason.db'}")
    store.jobs.submit(NewJob(spec=SPEC))
    store.close()
    disk.remount("ro")
    with pytest.raises(Unavailable, match=r"read-only|cannot be read or written"):
        store.jobs.submit(NewJob(spec=SPEC))
    disk.remount("rw")
    store.jobs.submit(NewJob(spec=SPEC))
    store.close()


def test_sqlite_that_is_damaged(tmp_path, settings):
    path = tmp_path / "reason.db"
    store = opened(settings, f"sqlite:///{path}")
    store.jobs.submit(NewJob(spec=SPEC))
    store.close()
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(Unavailable, match="files are damaged: restore a backup"):
        open_database(f"sqlite:///{path}").ping()


@pytest.fixture
def small_postgres(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Iterator[tuple[str, Disk]]:
    """A database of its own whose tables lie on a small disk."""
    name = postgres_url.rpartition("/")[2]
    folder = Path("/tmp") / f"{name}-disk"  # the server's user must reach it
    with mounted(folder, "24m") as disk:
        place = folder / "tables"
        place.mkdir()
        owned = subprocess.run(["chown", "postgres", str(place)], capture_output=True, check=False)
        if owned.returncode != 0:
            pytest.skip("the server's user is not known on this host")
        with psycopg.connect(postgres_server(), autocommit=True) as connection:
            try:
                connection.execute(f"CREATE TABLESPACE {name} LOCATION '{place}'")
            except psycopg.Error as error:
                pytest.skip(f"the server cannot use a disk of this host: {error}")
            connection.execute(f"ALTER DATABASE {name} SET TABLESPACE {name}")
        yield postgres_url, disk
        with psycopg.connect(postgres_server(), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
            connection.execute(f"DROP TABLESPACE {name}")
            connection.execute(f"CREATE DATABASE {name}")  # `postgres_url` drops it
    folder.rmdir()


def test_postgresql_on_a_full_disk(small_postgres, settings):
    url, disk = small_postgres
    store = opened(settings, url)
    store.jobs.submit(NewJob(spec=SPEC))
    disk.fill()
    assert "disk is full. Free space there" in str(submit_until_full(store))
    disk.free()
    store.jobs.submit(NewJob(spec=SPEC))
    store.close()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (postgres.DiskFull("could not extend file"), "disk is full"),
        (postgres.OutOfMemory("out of shared memory"), "does not answer"),
        (postgres.TooManyConnections("too many clients"), "does not answer"),
        (postgres.ReadOnlySqlTransaction("cannot execute UPDATE in a read-only transaction"), "is read-only"),
        (postgres.IoError("could not read block 0"), "does not answer"),
        (postgres.DataCorrupted("invalid page in block 0"), "files are damaged"),
        (postgres.IndexCorrupted("index is corrupted"), "files are damaged"),
        (postgres.AdminShutdown("terminating connection"), "does not answer"),
        (postgres.CannotConnectNow("the database system is starting up"), "does not answer"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_fault_of_the_server_is_explained(tmp_path, error, words):
    with pytest.raises(Unavailable, match=words), failing(tmp_path, error):
        pass


@pytest.mark.parametrize("error", [postgres.UndefinedColumn, postgres.NotNullViolation, postgres.SyntaxError])
def test_a_wrong_statement_is_a_fault_of_ours(tmp_path, error):
    with pytest.raises(sqlalchemy.exc.DBAPIError), failing(tmp_path, error("wrong")):
        pass


@contextlib.contextmanager
def failing(folder: Path, error: psycopg.Error) -> Iterator[None]:
    """A transaction in which a statement fails as SQLAlchemy reports it."""
    with open_database(f"sqlite:///{folder / 'empty.db'}").write():
        yield
        raise sqlalchemy.exc.DBAPIError.instance("UPDATE jobs", None, error, psycopg.Error)


def test_a_transaction_whose_client_says_nothing_is_ended(settings, postgres_url, monkeypatch):
    """A frozen client would hold the job's row for ever (a real one: tests/faults/test_fleet.py)."""
    monkeypatch.setattr("core.store.schema.database.IDLE_SECONDS", 5)
    silent = opened(settings, postgres_url)
    silent.database.ping()  # its connection is made
    monkeypatch.undo()
    other = open_store(settings.model_copy(update={"database_url": postgres_url}))
    silent.jobs.submit(NewJob(spec=SPEC))
    claim = silent.leases.claim(Capacity(worker="w"), 0.1)
    time.sleep(0.2)  # the lease is over
    now = datetime.now(UTC)
    rows = [
        {"job_id": claim.job_id, "name": "loss", "step": step, "value": 1.0, "at": now} for step in (1, 2)
    ]

    def hold() -> None:
        with silent.database.write() as session:
            session.execute(sqlalchemy.text("SELECT id FROM jobs FOR UPDATE"))
            session.execute(sqlalchemy.insert(Metric), rows)  # several rows: once their time was not counted
            assert other.leases.expire_leases() == []
            assert until(other.leases.expire_leases, what="the row is free") == [claim.job_id]
            session.execute(sqlalchemy.text("SELECT 1"))

    with pytest.raises(Unavailable):
        hold()
    silent.database.ping()
    with other.database.read() as session:
        assert session.scalar(sqlalchemy.text("SHOW idle_in_transaction_session_timeout")) == "20s"
    other.close()
    silent.close()


def test_many_rows_are_written_in_one_statement(settings, postgres_url, monkeypatch):
    """psycopg's executemany would leave a transaction that the server does not end (`_prepare_postgres`)."""
    store = opened(settings, postgres_url)
    store.jobs.submit(NewJob(spec=SPEC))
    claim = store.leases.claim(Capacity(worker="w"), 30)
    monkeypatch.setattr(psycopg.Cursor, "executemany", None)
    now = datetime.now(UTC)
    events = [Event(type=EventType.NOTICE, at=now, data={"message": str(number)}) for number in range(3)]
    points = [("loss", step, 1.0, now) for step in range(2500)]
    store.progress.record(claim, ProgressUpdate(events=events, metrics=points, log="x"))
    again = [("loss", step, 2.0, now) for step in range(1, 3)]
    store.progress.record(claim, ProgressUpdate(metrics=again))
    assert [value for _, value, _ in store.progress.metric(claim.job_id, "loss")] == [1.0, 2.0, 2.0] + [
        1.0
    ] * 2497
    assert [row.data.message for row in store.progress.events(claim.job_id)[-3:]] == ["0", "1", "2"]
    store.close()


def test_a_lock_that_somebody_keeps_is_not_waited_for_without_end(settings, postgres_url, monkeypatch):
    """By a client without our timeouts: a person with a console, a backup."""
    monkeypatch.setattr("core.store.schema.database.LOCK_SECONDS", 1)
    store = opened(settings, postgres_url)
    job, _ = store.jobs.submit(NewJob(spec=SPEC))
    with psycopg.connect(postgres_url) as console:
        console.execute("SELECT id FROM jobs FOR UPDATE")
        with pytest.raises(Unavailable, match="locked the rows"):
            store.jobs.cancel(job.id)
    assert store.jobs.cancel(job.id).state == "cancelled"
    store.close()
