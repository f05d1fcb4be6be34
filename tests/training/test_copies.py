"""Copies of checkpoints in the artifact storage."""

import uuid
from pathlib import Path

import pytest

from core.artifacts import MANIFEST, Library
from core.errors import StorageFailure
from core.training.checkpoints.checkpoint import Checkpoints, TrainingState
from core.training.checkpoints.remote_copies import Copies


@pytest.fixture
def library() -> Library:
    return Library(f"memory://{uuid.uuid4().hex}")


def make(library: Library, folder: Path, attempt: int = 1, told: list[str] | None = None) -> Checkpoints:
    copies = Copies(library, "job_1", (told if told is not None else []).append)
    return Checkpoints(folder, attempt, keep=1, copies=copies)


def save(checkpoints: Checkpoints, step: int, *, best: bytes | None = None) -> Path:
    path = checkpoints.attempt_folder / f"checkpoint-{step}"
    path.mkdir()
    (path / "model.safetensors").write_bytes(bytes([step]) * 1000)
    (checkpoints.folder / "tensorboard").mkdir(exist_ok=True)
    (checkpoints.folder / "tensorboard" / "events").write_text(f"until {step}")
    if best is not None:
        checkpoints.best.write_bytes(best)
    checkpoints.complete(step, TrainingState(best_step=step if best else None))
    return path


def test_another_host_gets_the_newest_with_its_best_weights_and_curves(library, tmp_path):
    here = make(library, tmp_path / "here")
    save(here, 20, best=b"best of 20")
    save(here, 40)
    here.wait()
    there = make(library, tmp_path / "there", attempt=2)
    found = there.latest()
    assert found.name == "checkpoint-40"
    assert (found / "model.safetensors").read_bytes() == bytes([40]) * 1000
    assert there.best.read_bytes() == b"best of 20"
    assert (there.folder / "tensorboard" / "events").read_text() == "until 40"
    # One copy is kept: the newest.
    assert {path.split("/")[1] for path in library.list_files("checkpoints/job_1")} == {
        "checkpoint-40",
        "tensorboard",
    }
    library.remove("checkpoints/job_1")
    assert library.list_files("checkpoints/job_1") == []
    assert make(library, tmp_path / "elsewhere").latest() is None


def test_what_this_host_has_is_not_fetched_again(library, tmp_path):
    here = make(library, tmp_path / "here")
    save(here, 20)
    path = save(here, 40)
    here.wait()
    (path / "mine").write_text("still here")
    assert (here.latest() / "mine").exists()


def test_a_copy_without_its_manifest_does_not_count(library, tmp_path):
    here = make(library, tmp_path / "here")
    save(here, 20)
    here.wait()
    library.remove(f"checkpoints/job_1/attempt-1/checkpoint-20/{MANIFEST}")
    assert make(library, tmp_path / "there").latest() is None


def test_a_copy_that_is_cut_short_does_not_count(library, tmp_path):
    here = make(library, tmp_path / "here")
    save(here, 20)
    here.wait()
    short = tmp_path / "short"
    short.write_bytes(b"cut")
    library.put(short, "checkpoints/job_1/attempt-1/checkpoint-20/model.safetensors")
    assert make(library, tmp_path / "there").latest() is None


def test_a_copy_that_fails_is_told_and_training_goes_on(library, tmp_path, monkeypatch):
    told: list[str] = []
    here = make(library, tmp_path / "here", told=told)

    def full(*_: object) -> None:
        raise RuntimeError("the bucket is gone")

    monkeypatch.setattr(
        library, "_fs", type("Gone", (), {"put_file": full, "find": full, "invalidate_cache": full})()
    )
    save(here, 20)
    here.wait()
    assert len(told) == 1
    assert "checkpoint-20 lies on this host only" in told[0]
    assert Checkpoints(here.folder, 2, keep=1).latest().name == "checkpoint-20"
    # To begin anew because the storage is away for a moment would lose the checkpoint: the attempt fails.
    with pytest.raises(StorageFailure, match="gone"):
        here.latest()


def test_the_checkpoint_that_is_being_copied_is_not_pruned(library, tmp_path, monkeypatch):
    """keep=1, and the storage is slow."""
    import time

    put = library.put
    monkeypatch.setattr(library, "put", lambda *arguments: (time.sleep(0.05), put(*arguments)))
    told: list[str] = []
    here = make(library, tmp_path / "here", told=told)
    for step in (20, 40, 60):
        save(here, step)
    here.wait()
    assert told == []
    assert make(library, tmp_path / "there").latest().name == "checkpoint-60"


def test_a_worker_that_comes_back_does_not_remove_its_successors_copy(library, tmp_path):
    frozen, successor = make(library, tmp_path / "one"), make(library, tmp_path / "two", attempt=2)
    save(successor, 60)
    successor.wait()
    save(frozen, 40)
    frozen.wait()
    assert make(library, tmp_path / "three").latest().name == "checkpoint-60"


def test_an_older_copy_serves_when_the_newest_is_not_whole(library, tmp_path):
    told: list[str] = []
    first, second = make(library, tmp_path / "one"), make(library, tmp_path / "two", attempt=2)
    save(second, 60)
    second.wait()
    save(first, 40)
    first.wait()
    library.remove("checkpoints/job_1/attempt-2/checkpoint-60/model.safetensors")
    assert make(library, tmp_path / "three", told=told).latest().name == "checkpoint-40"
    assert told == ["The copy of checkpoint-60 is not whole; it is passed over."]


def test_a_worker_that_comes_back_further_on_does_not_remove_its_successors_copy(library, tmp_path):
    """It has done more steps than its successor, whose copy is the older one."""
    frozen, successor = make(library, tmp_path / "one"), make(library, tmp_path / "two", attempt=2)
    save(successor, 40)
    successor.wait()
    save(frozen, 60)
    frozen.wait()
    copies = {
        str(path.parent)
        for path in map(Path, library.list_files("checkpoints/job_1"))
        if path.name == MANIFEST
    }
    assert copies == {"attempt-1/checkpoint-60", "attempt-2/checkpoint-40"}


def test_a_copy_is_fetched_into_the_attempts_own_folder(library, tmp_path):
    here = make(library, tmp_path / "here")
    save(here, 20)
    here.wait()
    there = make(library, tmp_path / "there", attempt=2)
    assert there.latest() == there.attempt_folder / "checkpoint-20"
    assert not (there.folder / "attempt-1").exists()


def test_a_copy_of_a_rejected_step_is_not_fetched_again(library, tmp_path):
    here = make(library, tmp_path / "here")
    save(here, 20)
    here.wait()
    there = make(library, tmp_path / "there", attempt=2)
    there.reject(there.latest())
    assert make(library, tmp_path / "there", attempt=3).latest() is None


def test_curves_that_another_attempt_writes_on_this_host_are_not_overwritten(library, tmp_path):
    here = make(library, tmp_path / "here")
    save(here, 20)
    here.wait()
    there = make(library, tmp_path / "there", attempt=2)
    (there.folder / "tensorboard").mkdir()
    (there.folder / "tensorboard" / "events").write_text("longer than the copy")
    assert there.latest() is not None
    assert (there.folder / "tensorboard" / "events").read_text() == "longer than the copy"
