"""The migrations make the tables that the code expects, on both databases."""

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import select

from core.jobs.protocol import ArtifactInput
from core.settings import Settings
from core.spec import parse_spec
from core.store import open_database, open_store
from core.store.artifacts import NewArtifact
from core.store.new_jobs import NewJob, insert_job
from core.store.schema.access import Access
from core.store.schema.tables import Base, JobInput
from migrations import config, is_current, upgrade
from tests.held import held_by


def test_migrations_equal_the_tables(database_url: str):
    upgrade(database_url)
    database = open_database(database_url)
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    assert is_current(database)
    database.engine.dispose()


def test_what_jobs_read_becomes_rows(database_url: str):
    """Before, it stood in their inputs alone."""
    upgrade(database_url)
    store = open_store(Settings(database_url=database_url))
    made = NewArtifact("dataset", "dataset", "file:///x", "a" * 64, 1, {})
    artifact, _ = store.artifacts.add_upload(held_by(store, made), "rows")
    known = ArtifactInput(uri="file:///x", artifact=artifact.id)
    gone = ArtifactInput(uri="file:///y", artifact="art_gone")
    spec = parse_spec({"kind": "train", "base_model": "o/m", "dataset": "dataset:rows"})
    with store.database.write() as session:
        job = insert_job(store.database, session, NewJob(spec=spec), Access())
        job.inputs = {"dataset:rows": known, "model:gone": gone}
    command.downgrade(config(database_url), "0007")
    upgrade(database_url)
    with store.database.read() as session:
        rows = [(row.job_id, row.artifact_id) for row in session.scalars(select(JobInput))]
    assert rows == [(job.id, artifact.id)]
    store.close()


def test_upgrading_twice_changes_nothing(database_url: str):
    database = open_database(database_url)
    assert not is_current(database)
    upgrade(database_url)
    upgrade(database_url)
    assert is_current(database)
    database.engine.dispose()
