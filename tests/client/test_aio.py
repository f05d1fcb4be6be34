"""The awaited client: the same answers and errors, streams that hold no thread, and no name left behind."""

import asyncio
import inspect
import json

import pytest

from client.aio import Client, Pipelines
from client.client import Client as PlainClient
from client.pipelines import Pipelines as PlainPipelines
from core.errors import NotFound, ServiceUnreachable
from tests.fuzz import serving
from tests.specs import MINIMAL


@pytest.fixture
def target(settings):
    with serving(settings) as found:
        yield found


def run(target, use):
    async def inside():
        async with Client(target.url, target.key) as client:
            return await use(client)

    return asyncio.run(inside())


def test_jobs_are_submitted_read_and_cancelled(target, settings):
    spec = {**MINIMAL["train"], "dataset": f"file:{settings.data_dir}/pairs.jsonl", "name": "awaited"}

    async def use(client):
        made = await client.submit(spec)
        listed = [job.id async for job in client.jobs(state="queued")]
        await client.cancel(made.id)
        return made, listed, await client.wait(made.id, timeout=10)

    made, listed, ended = run(target, use)
    assert listed == [made.id]
    assert ended.state == "cancelled"


def test_many_streams_and_calls_run_at_once(target):
    job_id = target.ids["job_id"]

    async def use(client):
        async def follow():
            return [event.seq async for event in client.stream(job_id)]

        return await asyncio.gather(*(follow() for _ in range(40)), *(client.job(job_id) for _ in range(40)))

    *found, _ = run(target, use)
    streams = found[:40]
    assert all(seen == streams[0] and seen for seen in streams)
    assert {job.id for job in found[40:]} == {job_id}


def test_pipelines_and_artifacts(target, tmp_path):
    async def use(client):
        [pipeline] = [one async for one in client.pipelines.list()]
        events = [event.stage async for event in client.pipelines.stream(pipeline.id)]
        await client.download(f"artifact:{target.ids['artifact_id']}", tmp_path / "model")
        return pipeline, events, await client.pipelines.wait(pipeline.id)

    pipeline, events, ended = run(target, use)
    assert set(events) == {"train"}
    assert ended.id == pipeline.id
    assert (tmp_path / "model" / "weights.bin").stat().st_size == 1000


def test_data_are_uploaded(target, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"query": "a", "positive": "b"}) + "\n")

    async def use(client):
        made = await client.upload(path, "rows")
        return made, [one.id async for one in client.datasets()]

    made, listed = run(target, use)
    assert listed[0] == made.id


def test_errors_are_those_of_the_plain_client(target):
    async def missing(client):
        await client.job("job_01k9zq5m2w8r4t6y0b3d5f7h9j")

    with pytest.raises(NotFound):
        run(target, missing)

    async def stream(client):
        return [event async for event in client.stream("job_01k9zq5m2w8r4t6y0b3d5f7h9j")]

    with pytest.raises(NotFound):
        run(target, stream)

    async def nobody():
        async with Client("http://127.0.0.1:9", retries=1) as client:
            await client.workers()

    with pytest.raises(ServiceUnreachable, match="reason serve"):
        asyncio.run(nobody())


def test_a_wait_ends_with_its_time(target, settings):
    spec = {**MINIMAL["train"], "dataset": f"file:{settings.data_dir}/pairs.jsonl"}

    async def use(client):
        made = await client.submit(spec)
        with pytest.raises(TimeoutError):
            await client.wait(made.id, timeout=0.3, poll_seconds=0.05)
        return await client.job(made.id)

    assert run(target, use).state == "queued"


@pytest.mark.parametrize(
    ("ours", "plain", "left_out"),
    [
        (
            Client,
            PlainClient,
            # For operators and for commands of the terminal.
            {"create_webhook", "webhooks", "delete_webhook", "deliveries", "delete_artifact", "pin", "unpin"}
            | {"promote", "export", "preview"},
        ),
        (
            Pipelines,
            PlainPipelines,
            {"schedule", "schedules", "get_schedule", "run_schedule", "delete_schedule"},
        ),
    ],
)
def test_no_method_is_forgotten(ours, plain, left_out):
    names = {name for name, _ in inspect.getmembers(plain, callable) if not name.startswith("_")}
    assert names - set(dir(ours)) == left_out


def test_metrics_are_a_frame_of_steps(target):
    frame = run(target, lambda client: client.metrics_frame(target.ids["job_id"]))
    assert frame.index.name == "step"
    assert frame["loss"].to_dict() == {1: 1.0}


def test_a_wait_may_show_the_progress(target, capsys):
    with PlainClient(target.url, target.key) as client:
        assert client.wait(target.ids["job_id"], progress=True).state == "succeeded"
        with pytest.raises(ValueError, match="leave timeout out"):
            client.wait(target.ids["job_id"], timeout=1, progress=True)
