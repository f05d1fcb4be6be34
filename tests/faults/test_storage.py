"""Files that are deleted, disks that fill up, storage that becomes read-only, under a running training."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import Unavailable
from tests.disks import Disk, mounted
from tests.faults.checks import check_resumed, check_succeeded_once
from tests.faults.service import Service, until


def deleted(folder: Path) -> None:
    shutil.rmtree(folder)


def moved_away(folder: Path) -> None:
    folder.rename(folder.with_name("moved"))


def replaced(folder: Path) -> None:
    moved_away(folder)
    folder.mkdir()
    (folder / "events.jsonl").touch()


def without_events(folder: Path) -> None:
    (folder / "events.jsonl").unlink()


def with_events_emptied(folder: Path) -> None:
    (folder / "events.jsonl").write_text("")


@pytest.mark.parametrize(
    "lose",
    [deleted, moved_away, replaced, without_events, with_events_emptied],
    ids=lambda lose: lose.__name__,
)
def test_a_run_folder_that_is_lost_ends_the_attempt_with_its_name(running, long_spec, lose):
    job = running.client.submit(long_spec)
    running.wait_for_step(job.id, 60)
    folder = running.run_folder(job.id)
    lose(folder)
    ended = running.wait(job.id)
    check_succeeded_once(running, ended, attempts=2)
    check_resumed(running, job.id)
    assert running.reasons(job.id) == ["storage_failed", "succeeded"]
    [first, _] = [event for event in running.client.events(job.id) if getattr(event.data, "reason", None)]
    assert f"The run folder {folder}" in first.data.message


def test_a_log_that_is_deleted_is_begun_anew_and_told(running, long_spec):
    job = running.client.submit(long_spec)
    running.wait_for_step(job.id, 30)
    log = running.run_folder(job.id) / "log.txt"
    log.unlink()
    until(log.exists, what="the log is there again")
    check_succeeded_once(running, running.wait(job.id), attempts=1)
    assert any("log.txt was deleted while the job ran" in message for message in running.notices(job.id))


def checkpoints_of(running: Service, job_id: str) -> Path:
    [folder] = Path(running.environment["REASON_DATA_DIR"]).rglob(f"checkpoints/{job_id}")
    return folder


@pytest.mark.parametrize("what", [".", "attempt-1", "tensorboard"])
def test_checkpoints_that_are_deleted_never_crash_the_job(running, long_spec, what):
    job = running.client.submit(long_spec)
    running.wait_for_step(job.id, 60)
    shutil.rmtree(checkpoints_of(running, job.id) / what, ignore_errors=True)
    ended = running.wait(job.id)
    assert ended.state == "succeeded", (ended.end_reason, running.logs())
    assert set(running.reasons(job.id)) <= {"storage_failed", "succeeded"}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with mounted(tmp_path / "disk", "64m") as made:
        yield made


def ended_once(running: Service, job_id: str) -> str | None:
    reasons = running.reasons(job_id)
    return reasons[0] if reasons else None


def test_a_full_disk_under_the_jobs_files(service, long_spec, disk, tmp_path):
    """The database lies elsewhere: every attempt's end can be told."""
    running = service(
        data_dir=disk.folder / "data", database_url=f"sqlite:///{tmp_path / 'reason.db'}"
    ).start()
    job = running.client.submit({**long_spec, "max_attempts": 20})
    running.wait_for_step(job.id, 40)
    disk.fill()
    reason = until(lambda: ended_once(running, job.id), what="the attempt ends")
    assert reason == "storage_failed", running.logs()
    disk.free()
    ended = running.wait(job.id)
    assert ended.state == "succeeded", (ended.end_reason, running.logs())
    assert set(running.reasons(job.id)) == {"storage_failed", "succeeded"}
    messages = [
        event.data.message
        for event in running.client.events(job.id)
        if getattr(event.data, "reason", None) == "storage_failed"
    ]
    assert all("No space left on device" in message for message in messages), messages


@pytest.mark.slow
def test_a_full_disk_under_everything(service, long_spec, disk):
    """The database as well: the API says so, the worker waits, and all goes on when there is space again."""
    running = service(data_dir=disk.folder / "data").start()
    job = running.client.submit({**long_spec, "max_attempts": 20})
    running.wait_for_step(job.id, 40)
    disk.fill()
    refused = until(lambda: refused_submission(running, long_spec), what="the API refuses a job")
    assert "The database's disk is full" in refused
    worker = running.processes["worker"]
    disk.free()
    ended = running.wait(job.id)
    assert ended.state == "succeeded", (ended.end_reason, running.logs())
    assert worker.poll() is None
    assert "crashed" not in running.reasons(job.id)


def refused_submission(running: Service, spec: dict) -> str | None:
    try:
        running.client.submit({**spec, "max_steps": 1, "name": None})
    except Unavailable as error:
        return str(error)
    return None
