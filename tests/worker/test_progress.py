"""What a process writes in files becomes rows: each once, in order, however the writing is cut up."""

import json

import pytest

from core.errors import StaleLease, StorageFailure, Unavailable
from core.jobs.reasons import EndReason
from core.settings import Settings
from core.spec import parse_spec
from core.store import open_store
from core.store.artifacts import NewArtifact
from core.store.attempts.leases import Capacity
from core.store.new_jobs import NewJob
from core.store.retention.files import BeingRemoved
from migrations import upgrade
from tests.held import held_by
from worker.progress import Crossing, Tail


@pytest.fixture
def store(settings: Settings):
    upgrade(settings.database_url)
    return open_store(settings)


@pytest.fixture
def claim(store):
    store.jobs.submit(NewJob(spec=parse_spec({"kind": "train", "base_model": "o/m", "dataset": "file:x"})))
    return store.leases.claim(Capacity(worker="w"), 30)


def no_outputs(name, output):
    raise AssertionError(name)


def line(type: str, **data) -> str:
    return json.dumps({"type": type, "at": "2026-01-01T00:00:00Z", "data": data}) + "\n"


def test_a_tail_gives_whole_lines_only(tmp_path):
    path = tmp_path / "file"
    tail = Tail(path)
    assert tail.read() == b""
    path.write_bytes(b"one\ntw")
    assert tail.read() == b"one\n"
    assert tail.read() == b""
    with path.open("ab") as file:
        file.write("o\nthrée\n".encode())
    assert tail.read() == "two\nthrée\n".encode()


def test_an_endless_line_does_not_stop_the_log(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    assert Tail(path).read(limit=64) == b"x" * 64


def test_lines_become_rows_and_columns(store, claim, tmp_path):
    events, log = tmp_path / "events.jsonl", tmp_path / "log.txt"
    crossing = Crossing(store.progress, claim, tmp_path, no_outputs)
    events.write_text(
        line("phase", phase="training")
        + line("metric", step=1, values={"loss": 0.5, "grad_norm": None})
        + line("progress", fraction=0.1, step=1, total_steps=10)
        + line("progress", fraction=0.2, step=2, total_steps=10)
        + "not an event\n"
        + line("state", state="succeeded")
        + line("metric", step=2, values={"loss": 0.4})
    )
    log.write_text("hello\n")
    crossing.look()
    assert crossing.due()
    crossing.flush()
    assert not crossing.due()
    job = store.jobs.get(claim.job_id)
    assert (job.phase, job.latest, job.progress.step) == ("training", {"loss": 0.4, "grad_norm": None}, 2)
    kinds = [event.type for event in store.progress.events(job.id)]
    # Of two progress events in one batch the last one is kept; a process cannot write a state.
    assert kinds == ["state", "state", "phase", "metric", "progress", "metric"]
    assert [value for _, value, _ in store.progress.metric(job.id, "loss")] == [0.5, 0.4]
    assert store.progress.log(job.id)[0].content == "hello\n"


def test_a_batch_that_could_not_be_written_goes_with_the_next(store, claim, tmp_path, monkeypatch):
    events = tmp_path / "events.jsonl"
    crossing = Crossing(store.progress, claim, tmp_path, no_outputs)
    events.write_text(line("notice", level="info", message="first"))
    crossing.look()

    def away(*_):
        raise Unavailable("the database is away")

    with monkeypatch.context() as patch:
        patch.setattr(store.progress, "record", away)
        with pytest.raises(Unavailable):
            crossing.flush()
    with events.open("a") as file:
        file.write(line("notice", level="info", message="second"))
    crossing.look()
    crossing.flush()
    told = [event.data.message for event in store.progress.events(claim.job_id) if event.type == "notice"]
    assert told == ["first", "second"]


def test_nothing_is_written_after_the_end(store, claim, tmp_path):
    events = tmp_path / "events.jsonl"
    crossing = Crossing(store.progress, claim, tmp_path, no_outputs)
    store.leases.finish(claim, EndReason.SUCCEEDED)
    events.write_text(line("phase", phase="training"))
    crossing.look()
    with pytest.raises(StaleLease):
        crossing.flush()


def test_weights_that_nobody_can_look_at_now_are_looked_at_again(store, claim, tmp_path):
    """And hold up nothing else of their batch."""
    events, answers = tmp_path / "events.jsonl", [StorageFailure("away"), BeingRemoved("just now")]

    def check(name, output):
        if answers:
            raise answers.pop()
        made = NewArtifact(name, output.kind, output.uri, output.sha256, output.bytes, STEP)
        return held_by(store, made)

    crossing = Crossing(store.progress, claim, tmp_path, check)
    published = {"name": "checkpoint@5", "kind": "checkpoint", "uri": "file:///x", "sha256": "a" * 64}
    events.write_text(line("output", **published, bytes=1))
    for number in range(3):
        with events.open("a") as file:
            file.write(line("notice", level="info", message=f"{number}"))
        crossing.look()
        crossing.flush()
        there = store.artifacts.checkpoints(store.jobs.get(claim.job_id))
        assert len(there) == (number == 2)
        told = [one.data.message for one in store.progress.events(claim.job_id) if one.type == "notice"]
        assert told == [f"{one}" for one in range(number + 1)]


STEP = {"metadata": {"step": 5, "attempt": 1}}
