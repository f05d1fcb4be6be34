"""What a host removes by age, and what ``reason gc`` says of it."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import update

from core.artifacts import Library
from core.errors import Conflict, StorageFailure
from core.jobs.reasons import EndReason
from core.settings import Settings
from core.spec import parse_spec
from core.store import open_store
from core.store.attempts.leases import Capacity
from core.store.new_jobs import NewJob
from core.store.schema.tables import Job, UnreferencedFolder
from migrations import upgrade
from worker.collector import Collector

ROOT = Path(__file__).parent.parent.parent
SPEC = {"kind": "embed", "model": "hf:o/m", "texts": ["a"]}
DAY = 86_400


@pytest.fixture
def own(settings):
    upgrade(settings.database_url)
    store = open_store(settings)
    yield store
    store.close()


def ended(store, *, days: float, reason=EndReason.BAD_DATA) -> str:
    store.jobs.submit(NewJob(spec=parse_spec(SPEC)))
    claim = store.leases.claim(Capacity("w"), 60)
    store.leases.finish(claim, reason)
    with store.database.write() as session:
        moved = update(Job).where(Job.id == claim.job_id)
        session.execute(moved.values(finished_at=store.database.time(-days * DAY)))
    return claim.job_id


def folder(path: Path, *, days: float) -> Path:
    path.mkdir(parents=True)
    (path / "file").write_text("content")
    for one in (path / "file", path):
        os.utime(one, (time.time() - days * DAY,) * 2)
    return path


def collect(settings, store, *, dry_run=False):
    return sorted((item.what, item.name) for item in Collector(settings, store, dry_run=dry_run).collect())


def test_run_folders_and_checkpoints_of_old_jobs_go(settings, own, monkeypatch):
    monkeypatch.setattr("core.store.retention.files.REST_SECONDS", -1.0)
    old, new = ended(own, days=20), ended(own, days=1)
    active = own.jobs.submit(NewJob(spec=parse_spec(SPEC)))[0].id
    storage = Library(settings.artifact_url).local
    runs = {job: folder(settings.runs_dir / job, days=20) for job in (old, new, active, "job_gone")}
    kept = {job: folder(storage / "checkpoints" / job, days=20) for job in (old, new, active, "job_gone")}
    just = folder(settings.runs_dir / "job_just", days=0)
    told = collect(settings, own, dry_run=True)
    assert [what for what, _ in told] == ["folder", "run folder"]
    assert all(path.exists() for path in (*runs.values(), *kept.values()))
    assert collect(settings, own) == told
    # Another database may know what this one does not.
    assert {job for job, path in runs.items() if path.exists()} == {new, active, "job_gone"}
    assert {job for job, path in kept.items() if path.exists()} == {new, active, "job_gone"}
    assert collect(settings, own) == []
    list(Collector(settings, own).collect(unknown=True))
    assert {job for job, path in runs.items() if path.exists()} == {new, active}
    assert just.exists(), "its job may just be deleted"


def test_a_retried_job_keeps_its_checkpoints(settings, own, monkeypatch):
    """Also when it is tried again between the look and the removal."""
    old = ended(own, days=20)
    kept = folder(Library(settings.artifact_url).local / "checkpoints" / old, days=20)
    monkeypatch.setattr("core.store.retention.files.REST_SECONDS", -1.0)
    before = own.retention.leave_checkpoints

    def retried_meanwhile(job_id, *rest):
        assert before(job_id, *rest)
        own.jobs.retry(job_id)
        assert not before(job_id, *rest), "it has not ended any more"
        return True

    monkeypatch.setattr(own.retention, "leave_checkpoints", retried_meanwhile)
    assert collect(settings, own) == []
    assert kept.exists()


def test_a_retry_waits_while_its_checkpoints_are_removed(settings, own, monkeypatch):
    monkeypatch.setattr("core.store.retention.files.REST_SECONDS", -1.0)
    old = ended(own, days=20)
    assert own.retention.leave_checkpoints(old, 14)
    removal = own.folders.next_removal()
    with pytest.raises(Conflict, match="just being removed"):
        own.jobs.retry(old)
    own.folders.removed(removal)
    assert own.jobs.retry(old).state == "queued"


def test_what_the_storage_does_not_remove_can_be_used_again(settings, own, monkeypatch):
    """Else a job that makes the same content would wait for ever."""
    monkeypatch.setattr("core.store.retention.files.REST_SECONDS", -1.0)
    job = ended(own, days=0)
    own.retention.delete_job(job)

    def refuse(self, place):
        raise StorageFailure("access denied")

    monkeypatch.setattr(Library, "discard", refuse)
    assert collect(settings, own) == []
    assert own.folders.hold(f"checkpoints/{job}")


def test_who_was_taken_for_dead_removes_nothing(settings, own, monkeypatch):
    monkeypatch.setattr("core.store.retention.files.REST_SECONDS", -1.0)
    job = ended(own, days=0)
    kept = folder(Library(settings.artifact_url).local / "checkpoints" / job, days=0)
    own.retention.delete_job(job)
    frozen = own.folders.next_removal()
    with own.database.write() as session:
        session.execute(update(UnreferencedFolder).values(until=own.database.time(-1)))
    own.folders.removed(own.folders.next_removal())
    assert not Collector(settings, own)._remove(frozen)
    assert kept.exists()


def test_deleted_jobs_leave_no_checkpoints(settings, own, monkeypatch):
    monkeypatch.setattr("core.store.retention.files.REST_SECONDS", -1.0)
    job = ended(own, days=0)
    kept = folder(Library(settings.artifact_url).local / "checkpoints" / job, days=0)
    own.retention.delete_job(job)
    ran = folder(settings.runs_dir / job, days=2)
    forever = settings.model_copy(update={"run_folder_days": None, "checkpoint_days": None})
    assert collect(forever, own) == [("folder", f"checkpoints/{job}"), ("run folder", f"{ran} (of {job})")]
    assert not kept.exists()
    assert not ran.exists()


def test_what_killed_processes_were_about_to_publish_goes(settings, own):
    staging = Library(settings.artifact_url).local / "staging"
    old, new = folder(staging / "a", days=2), folder(staging / "b", days=0)
    assert [what for what, _ in collect(settings, own)] == ["staging"]
    assert (old.exists(), new.exists()) == (False, True)


def test_entries_of_caches_that_nobody_uses_go(settings, own):
    cache = settings.data_dir / "cache"
    places = ("tokens/a", "embeddings/b", "remote/c", f"model/ab/{'a' * 64}", "staging/x")
    old = [folder(cache / place, days=40) for place in places]
    used = folder(cache / "tokens/new", days=40)
    os.utime(used)
    foreign = folder(cache / "of-somebody-else", days=40)
    assert len(collect(settings, own)) == len(old)
    assert not any(path.exists() for path in old)
    assert used.exists()
    assert foreign.exists()
    forever = settings.model_copy(update={"cache_days": None})
    kept = folder(cache / "tokens/a", days=400)
    assert collect(forever, own) == []
    assert kept.exists()


def test_the_command_says_what_it_would_do_and_does_it(settings, own):
    old = ended(own, days=20)
    path = folder(settings.runs_dir / old, days=20)

    def gc(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "client.cli", "gc", *arguments],
            cwd=ROOT,
            env={**os.environ, "REASON_DATA_DIR": str(settings.data_dir), **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    dry = gc("--dry-run", "--json")
    assert dry.returncode == 0, dry.stderr
    [item] = [json.loads(line) for line in dry.stdout.splitlines()]
    assert (item["what"], item["bytes"]) == ("run folder", 7)
    assert path.exists()
    assert "would be removed" in gc("--dry-run").stdout
    assert gc("--dry-run", REASON_RUN_FOLDER_DAYS="").stdout.startswith("0 items")
    assert gc().returncode == 0
    assert not path.exists()
    wrong = gc(REASON_CACHE_DAYS="often")
    assert (wrong.returncode, "REASON_CACHE_DAYS" in wrong.stderr) == (2, True)
    assert "Traceback" not in wrong.stderr


def test_days_can_be_switched_off_and_must_be_positive(monkeypatch):
    monkeypatch.setenv("REASON_CHECKPOINT_DAYS", "")
    assert Settings().checkpoint_days is None
    monkeypatch.setenv("REASON_CHECKPOINT_DAYS", "0")
    with pytest.raises(ValueError, match="greater than 0"):
        Settings()
