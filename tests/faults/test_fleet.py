"""The same job on PostgreSQL and Redis, and with servers that go away."""

import uuid

import redis

from core.artifacts import Library
from tests.faults.checks import check_resumed, check_succeeded_once
from tests.faults.service import until


def test_a_job_on_postgresql_and_redis(service, long_spec, postgres_url, redis_url, request):
    request.addfinalizer(lambda: redis.Redis.from_url(redis_url).flushdb())
    redis.Redis.from_url(redis_url).flushdb()
    running = service(database_url=postgres_url, broker_url=redis_url).start()
    assert running.client._json("GET", "/readyz")["status"] == "ok"
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
