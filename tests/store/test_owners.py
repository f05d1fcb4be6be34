"""Migration 0004: artifacts that are there already get the owners of their jobs."""

from alembic import command
from sqlalchemy import text

from core.store import open_database
from migrations import config


def test_artifacts_get_the_owner_of_their_job(database_url: str):
    command.upgrade(config(database_url), "0003")
    database = open_database(database_url)
    job = (
        "INSERT INTO jobs (id, kind, labels, spec, spec_version, owner, state, priority, rank, wants_gpu,"
        " not_before, attempt, failures, max_attempts, cancel_requested, pause_requested, progress, latest,"
        " memory, inputs, outputs, event_seq, log_seq, created_at)"
        " VALUES (:id, 'train', '{}', '{}', 1, :owner, 'succeeded', 0, 0, 'no',"
        " :now, 1, 0, 3, false, false, '{}', '{}', '{}', '{}', '{}', 0, 0, :now)"
    )
    artifact = (
        "INSERT INTO artifacts (id, job_id, output, kind, uri, sha256, bytes, manifest, created_at)"
        " VALUES (:id, :job, 'model', 'model', 'file:///x', 'a', 1, '{}', :now)"
    )
    now = "2026-01-01 00:00:00"
    with database.write() as session:
        for id, owner in (("job_1", "key_1"), ("job_2", None)):
            session.execute(text(job), {"id": id, "owner": owner, "now": now})
        for id, made_by in (("art_1", "job_1"), ("art_2", "job_2"), ("art_3", None)):
            session.execute(text(artifact), {"id": id, "job": made_by, "now": now})
    command.upgrade(config(database_url), "head")
    with database.read() as session:
        owners = dict(session.execute(text("SELECT id, owner FROM artifacts")).tuples().all())
    assert owners == {"art_1": "key_1", "art_2": None, "art_3": None}
    command.downgrade(config(database_url), "0003")
    with database.read() as session:
        assert session.scalar(text("SELECT count(*) FROM artifacts")) == 3
    database.engine.dispose()
