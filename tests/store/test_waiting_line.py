"""When queued jobs may begin: each slot takes the next as soon as it is free."""

from datetime import timedelta

import pytest

from core.jobs.state import JobState
from core.spec import parse_spec
from core.store import Store
from core.store.fleet import Inventory
from core.store.new_jobs import NewJob
from core.store.schema.tables import Job
from core.store.waiting_line import expected_starts


@pytest.mark.parametrize(
    ("slots", "running", "queued", "starts"),
    [
        (1, [], [10, 20, 5], [0, 10, 30]),
        (2, [30], [10, 10, 10, 10], [0, 10, 20, 30]),
        (2, [30, 7], [10, None, 1], [7, 17, 30]),
        (1, [None], [10], [None]),  # nobody knows what runs
        (1, [], [None, 10], [0, None]),  # nor how long the first takes
        (0, [], [10], [None]),  # no worker
        (1, [50, 20], [10], [20]),  # a worker went down to one slot meanwhile
    ],
)
def test_expected_starts(slots, running, queued, starts):
    assert expected_starts(slots, running, queued) == starts


def ended(store: Store, kind: str, seconds: float, *, reused: bool = False) -> None:
    """A job of a kind that took so long."""
    job = store.jobs.submit(NewJob(spec=spec_of(kind)))[0]
    with store.database.write() as session:
        row = session.get_one(Job, job.id)
        row.state, row.started_at = JobState.SUCCEEDED, row.created_at
        row.finished_at = row.created_at + timedelta(seconds=seconds)
        row.reused_from = "job_1" if reused else None


def spec_of(kind: str):
    return parse_spec(
        {
            "prepare": {"kind": "prepare", "source": "file:p.jsonl"},
            "train": {"kind": "train", "base_model": "o/m", "dataset": "file:p.jsonl"},
        }[kind]
    )


def test_a_pipeline_is_done_when_its_longest_way_is(store: Store):
    store.workers.register(Inventory(host="h", slots=2, gpus=[], memory_bytes=1, queues=["cpu"]))
    ended(store, "prepare", 10)
    ended(store, "train", 100)
    for _ in range(30):
        ended(store, "train", 0, reused=True)  # says nothing of how long a training takes
    specs = {"a": "prepare", "b": "train", "c": "train", "d": "train"}
    jobs = {name: store.jobs.submit(NewJob(spec=spec_of(kind)))[0] for name, kind in specs.items()}
    needs = {"b": ["a"], "c": ["b"]}
    assert store.line.time_left(jobs, needs) == 210, "a, b, c, one after the other; d beside them"
    assert store.line.time_left(jobs, {}) == 155, "two slots share 310 s of work"
    assert store.line.time_left({}, {}) == 0
    assert store.line.look()[0].starts_in_seconds == 0


def test_nobody_knows_when_a_pipeline_is_done_without_a_worker_or_an_earlier_job(store: Store):
    jobs = {"a": store.jobs.submit(NewJob(spec=spec_of("prepare")))[0]}
    assert store.line.time_left(jobs, {}) is None
    store.workers.register(Inventory(host="h", slots=2, gpus=[], memory_bytes=1, queues=["cpu"]))
    assert store.line.time_left(jobs, {}) is None
    ended(store, "prepare", 10)
    assert store.line.time_left(jobs, {}) == 10
