"""The same job on PostgreSQL and Redis, and with servers that go away."""

import signal
import uuid

import psycopg
import pytest
import redis

from core.artifacts import Library
from tests.faults.checks import check_resumed, check_succeeded_once
from tests.faults.service import OUTLASTS_A_LEASE, Service, until


@pytest.mark.slow
def test_a_job_on_postgresql_and_redis(service, long_spec, postgres_url, redis_url, request):
    request.addfinalizer(lambda: redis.Redis.from_url(redis_url).flushdb())
    redis.Redis.from_url(redis_url).flushdb()
    running = service(database_url=postgres_url, broker_url=redis_url).start()
    assert running.client._connection.json("GET", "/readyz")["status"] == "ok"
    job = running.client.submit({**long_spec, "max_steps": 100})
    running.wait_for_step(job.id, 60)
    running.job_process(job.id).kill()
    ended = running.wait(job.id)
    assert (ended.state, ended.attempt) == ("succeeded", 2)
    seen = [event.seq for event in running.client.stream(job.id)]
    assert seen == list(range(1, len(seen) + 1))
    target = running.folder / uuid.uuid4().hex
    artifact = running.client.download(f"job:{job.id}/model", target)
    assert {path.name for path in target.iterdir()} >= {"model.safetensors", "modules.json"}
    assert running.client.download("model:survivor@1", target).id == artifact.id
    # Two workers, many jobs: each runs once.
    running.start("worker-2")
    jobs = [running.client.submit({**long_spec, "max_steps": 1, "name": None}).id for _ in range(6)]
    assert {running.wait(job_id).attempt for job_id in jobs} == {1}
    until(lambda: len(running.client.workers()) == 2, what="both workers are listed")


def test_a_worker_that_is_frozen_inside_a_transaction_loses_its_job(service, long_spec, postgres_url):
    """It holds the job's row until the server ends its transaction: then another worker takes the job."""
    running = service(database_url=postgres_url).start()
    job = running.client.submit({**long_spec, **OUTLASTS_A_LEASE})
    running.wait_for_step(job.id, 60)
    worker = running.processes["worker"]
    freeze_inside_a_transaction(running, "worker", job.id, postgres_url)
    running.start("worker-2")
    until(lambda: running.client.job(job.id).attempt == 2, what="the other worker takes over")
    worker.send_signal(signal.SIGCONT)
    check_succeeded_once(running, running.wait(job.id), attempts=2)
    check_resumed(running, job.id)
    # The one that comes back finds its connection closed, opens another, and takes jobs again.
    running.kill("worker-2", signal.SIGTERM)
    again = running.client.submit({**long_spec, "max_steps": 2, "name": None})
    check_succeeded_once(running, running.wait(again.id), attempts=1)


def freeze_inside_a_transaction(running: Service, name: str, job_id: str, url: str) -> None:
    """SIGSTOP to a worker that has changed the job's row and has not committed."""
    with psycopg.connect(url, autocommit=True) as watch, psycopg.connect(url) as console:
        # A worker writes progress in one transaction: the job's row first, then events. There it waits.
        console.execute("LOCK TABLE events IN SHARE MODE")
        waiting = "wait_event_type = 'Lock' AND query LIKE 'INSERT INTO events%'"
        connection = until(
            lambda: watch.execute(f"SELECT pid FROM pg_stat_activity WHERE {waiting}").fetchone(),
            what="the worker waits inside its transaction",
        )
        running.freeze_anywhere(name)
        console.rollback()

        def kept() -> bool:
            state = watch.execute("SELECT state FROM pg_stat_activity WHERE pid = %s", connection).fetchone()
            free = watch.execute("SELECT id FROM jobs WHERE id = %s FOR UPDATE SKIP LOCKED", [job_id])
            return state == ("idle in transaction",) and free.fetchone() is None

        until(kept, what="the frozen worker keeps the job's row locked")


@pytest.mark.slow
def test_another_host_goes_on_with_what_the_storage_has(
    service, long_spec, postgres_url, redis_url, s3_url, request
):
    """Two hosts that share a database, a broker and a bucket, and no folder."""
    request.addfinalizer(lambda: redis.Redis.from_url(redis_url).flushdb())
    shared = {"database_url": postgres_url, "broker_url": redis_url, "artifact_url": s3_url}
    here = service(**shared).start()
    job = here.client.submit(long_spec)
    here.wait_for_step(job.id, 60)
    here.kill("worker")
    there = service(**shared).start("worker")
    assert there.folder != here.folder
    ended = here.wait(job.id)
    check_succeeded_once(here, ended, attempts=2)
    check_resumed(here, job.id)
    target = here.folder / "model"
    here.client.download(f"job:{job.id}/model", target)
    assert (target / "model.safetensors").stat().st_size > 0
    assert Library(s3_url).list_files("checkpoints") == []
    # The next job starts from that model: fetched from the bucket, kept on the host.
    again = here.client.submit({**long_spec, "base_model": f"job:{job.id}/model", "max_steps": 2})
    assert here.wait(again.id).state == "succeeded"


def test_a_worker_that_cannot_write_says_so_and_ends(service):
    running = service()
    running.start("api")
    data = running.folder / "data"
    (data / "runs").write_text("a file where a folder must be")
    running.start("worker")
    assert running.processes.pop("worker").wait(60) == 1
    assert f"reason worker: {data / 'runs'} cannot be written by user" in running.logs()
