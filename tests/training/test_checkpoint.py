"""Checkpoints of two attempts at once: none deletes under the other, and broken ones are passed over."""

import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from core.artifacts.locks import FolderInUse, FolderLock, unlocked
from core.errors import StorageFailure
from core.training.checkpoints.checkpoint import Checkpoints, TrainingState


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints"


def save(checkpoints: Checkpoints, step: int, state: TrainingState | None = None) -> Path:
    path = checkpoints.attempt_folder / f"checkpoint-{step}"
    path.mkdir()
    (path / "weights.safetensors").write_bytes(bytes([step]) * 100)
    checkpoints.complete(step, state or TrainingState())
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.glob("attempt-*/checkpoint-*"))


def test_a_new_attempt_leaves_what_a_living_one_writes(folder):
    first = Checkpoints(folder, 1, keep=1)
    save(first, 20)
    second = Checkpoints(folder, 2, keep=1)
    assert second.latest() == folder / "attempt-2" / "checkpoint-20"
    save(second, 40)
    assert names(folder) == ["attempt-1/checkpoint-20", "attempt-2/checkpoint-40"]
    first.close()  # as when its process ends
    save(second, 60)
    assert names(folder) == ["attempt-2/checkpoint-60"]


def test_an_attempt_that_lost_its_job_deletes_nothing_of_its_successors(folder):
    first = Checkpoints(folder, 1, keep=1)
    save(first, 20)
    second = Checkpoints(folder, 2, keep=1)
    second.latest()
    save(first, 40)  # it does not know yet, and is ahead
    save(first, 60)
    assert names(folder) == ["attempt-1/checkpoint-60", "attempt-2/checkpoint-20"]
    second.close()
    save(first, 80)
    assert "attempt-2/checkpoint-20" in names(folder)
    assert save(second, 30).is_dir()


def test_what_an_attempt_goes_on_from_is_its_own(folder):
    first = Checkpoints(folder, 1, keep=2)
    first.best.write_bytes(b"best")
    save(first, 20, TrainingState(best_step=10))
    second = Checkpoints(folder, 2, keep=2)
    found = second.latest()
    shutil.rmtree(folder / "attempt-1")
    assert (found / "weights.safetensors").read_bytes() == bytes([20]) * 100
    assert second.best.read_bytes() == b"best"
    assert Checkpoints.state(found).best_step == 10


def test_a_checkpoint_that_its_own_attempt_has_just_dropped_is_passed_over(folder, monkeypatch):
    first = Checkpoints(folder, 1, keep=2)
    save(first, 20)
    save(first, 40)
    link = os.link

    def dropped_meanwhile(source: Path, target: Path) -> None:
        shutil.rmtree(folder / "attempt-1" / "checkpoint-40", ignore_errors=True)
        link(source, target)

    monkeypatch.setattr(os, "link", dropped_meanwhile)
    assert Checkpoints(folder, 2, keep=2).latest() == folder / "attempt-2" / "checkpoint-20"


def test_a_file_system_without_links_gets_copies(folder, monkeypatch):
    save(Checkpoints(folder, 1, keep=2), 20)

    def unsupported(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", unsupported)
    found = Checkpoints(folder, 2, keep=2).latest()
    assert (found / "weights.safetensors").read_bytes() == bytes([20]) * 100


def test_two_processes_cannot_write_as_the_same_attempt(folder):
    first = Checkpoints(folder, 1, keep=1)
    with pytest.raises(StorageFailure, match="attempt-1 is in use by another process"):
        Checkpoints(folder, 1, keep=1)
    Checkpoints(folder, 1, keep=1, owner=False)  # a helper of the same job
    first.close()
    Checkpoints(folder, 1, keep=1)


def test_a_lock_ends_with_its_process(folder):
    folder.mkdir()
    code = (
        "import sys, pathlib; from core.artifacts.locks import FolderLock; "
        "lock = FolderLock(pathlib.Path(sys.argv[1])); print('locked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "locked\n"
        with unlocked(folder) as free:
            assert not free
        with pytest.raises(FolderInUse):
            FolderLock(folder)
        process.kill()
        process.wait()
    with unlocked(folder) as free:
        assert free
        with pytest.raises(FolderInUse):  # while the block runs, nobody can begin there
            FolderLock(folder)


def test_a_lock_is_given_back_although_a_forked_data_loader_lives(folder):
    folder.mkdir()
    lock = FolderLock(folder)
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,), daemon=True)
    child.start()
    try:
        lock.close()
        with unlocked(folder) as free:
            assert free
    finally:
        child.kill()
        child.join()


def cut_short(path: Path) -> None:
    (path / "weights.safetensors").write_bytes(b"")


def without_manifest(path: Path) -> None:
    (path / "manifest.json").unlink()


def with_damaged_state(path: Path) -> None:
    state = path / "training_state.json"
    state.write_bytes(b"x" * state.stat().st_size)


def with_damaged_manifest(path: Path) -> None:
    (path / "manifest.json").write_bytes(b"\xff\xfe")


def with_damaged_trainer_state(path: Path) -> None:
    (path / "trainer_state.json").write_text("{")


@pytest.mark.parametrize(
    "spoil",
    [
        cut_short,
        without_manifest,
        with_damaged_state,
        with_damaged_manifest,
        with_damaged_trainer_state,
        lambda path: Checkpoints(path.parents[1], 9, keep=9).reject(path),
    ],
    ids=["cut short", "no manifest", "state", "manifest", "trainer state", "rejected"],
)
def test_a_broken_checkpoint_is_passed_over(folder, spoil: Callable[[Path], None]):
    first = Checkpoints(folder, 1, keep=2)
    save(first, 20)
    spoil(save(first, 40))
    first.close()
    assert Checkpoints(folder, 2, keep=2).latest() == folder / "attempt-2" / "checkpoint-20"


def test_a_rejected_step_counts_again_when_it_was_made_anew(folder):
    first = Checkpoints(folder, 1, keep=2)
    save(first, 20)
    first.reject(save(first, 40))
    first.close()
    second = Checkpoints(folder, 2, keep=2)
    assert second.latest().name == "checkpoint-20"
    save(second, 40)
    second.close()
    assert Checkpoints(folder, 3, keep=2).latest() == folder / "attempt-3" / "checkpoint-40"


def test_no_checkpoint_is_made_without_the_best_weights_or_the_mined_negatives(folder, tmp_path):
    mined = tmp_path / "mined"
    mined.mkdir()
    checkpoints = Checkpoints(folder, 1, keep=2, beside=mined)
    with pytest.raises(StorageFailure, match="the weights of step 10, was deleted"):
        save(checkpoints, 20, TrainingState(best_step=10))
    mined.rmdir()
    with pytest.raises(StorageFailure, match="the mined negatives, was deleted"):
        save(checkpoints, 40)
    checkpoints.close()
    assert Checkpoints(folder, 2, keep=2).latest() is None


def test_a_checkpoint_whose_folder_was_deleted_is_a_storage_failure(folder):
    checkpoints = Checkpoints(folder, 1, keep=2)
    shutil.rmtree(folder)
    with pytest.raises(StorageFailure, match=f"Saving the checkpoint of step 20 in {folder}"):
        checkpoints.complete(20, TrainingState())
