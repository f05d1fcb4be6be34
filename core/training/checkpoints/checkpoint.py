"""Checkpoints: folders that are either whole or not there, the newest few of them."""

import json
import os
import shutil
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from transformers.trainer import TRAINER_STATE_NAME

from core.artifacts import MANIFEST, is_whole, seal
from core.artifacts.locks import FolderInUse, FolderLock, unlocked
from core.engine.batching import Change
from core.errors import StorageFailure
from core.native_errors import writing
from core.training.checkpoints.remote_copies import Copies, number_of
from core.training.recovery import Limits

WEIGHTS = "weights.safetensors"
_STATE = "training_state.json"
_BEST = "best.safetensors"
_REJECTED = "rejected-"
"""A file of this name and the step: no checkpoint of the step can be loaded."""


Scores = dict[str, dict[str, float]]
"""Dataset -> metric -> value."""


@dataclass(frozen=True)
class Evaluation:
    """How good the model was after a step."""

    step: int
    scores: Scores


@dataclass
class TrainingState:
    """What a resumed job must know besides weights, optimizer and random state."""

    evaluations: list[Evaluation] = field(default_factory=list)
    # step -> dataset -> metric -> query -> value: of the first evaluation, the best and the last.
    by_query: dict[str, dict[str, dict[str, dict[str, float]]]] = field(default_factory=dict)
    merged: Evaluation | None = None  # of the weights that are averaged with the base model's
    best_step: int | None = None
    best_score: float | None = None
    best_by_dataset: dict[str, float] = field(default_factory=dict)
    stalled: dict[str, int] = field(default_factory=dict)  # evaluations without a rise
    reweighed: list[Change] = field(default_factory=list)  # of the datasets' shares
    mined: list[tuple[int, int]] = field(default_factory=list)  # from which batch on, which generation
    mining: tuple[int, int] | None = None  # in the background: which generation, since which step
    tokens_seen: int = 0
    training_seconds: float = 0.0
    limits: Limits | None = None  # as far as they have been narrowed
    depends_on: dict[str, str] = field(default_factory=dict)  # see `core.training.checkpoints.resuming`

    @property
    def baseline(self) -> Scores:
        """The base model's; empty where it was not evaluated."""
        return next((found.scores for found in self.evaluations if found.step == 0), {})

    @property
    def final(self) -> Evaluation | None:
        """Of the weights that are published: averaged with the base's, or the best, or the last."""
        if self.merged is not None:
            return self.merged
        of_best = (found for found in self.evaluations if found.step == self.best_step)
        return next(of_best, self.evaluations[-1] if self.evaluations else None)


class Checkpoints:
    """The checkpoints of one job, under one folder. Survives attempts, processes and (when shared) hosts.

    Two attempts may be alive at the same time: a process that was frozen does not know yet that it has lost
    its job. So each attempt writes into a folder of its own and reads from it alone: the checkpoint that it
    goes on from is linked into it first. An earlier attempt's checkpoints are dropped only when its lock
    shows that its process has ended, a newer attempt's never.
    """

    def __init__(
        self,
        folder: Path,
        attempt: int,
        keep: int,
        copies: Copies | None = None,
        beside: Path | None = None,
        *,
        owner: bool = True,
    ) -> None:
        """``beside``: a folder whose files are kept with every checkpoint, and come back with it.

        ``owner``: whether this process writes; the helpers of a job with several GPUs do not. Raises
        `StorageFailure` where another process writes as the same attempt.
        """
        self.folder = folder
        self._beside = beside
        self._copies = copies
        self._attempt = attempt
        self.attempt_folder = folder / f"attempt-{attempt}"
        self._keep = keep
        with writing("Making the folder of checkpoints", folder):
            self.attempt_folder.mkdir(parents=True, exist_ok=True)
            try:
                self._lock = FolderLock(self.attempt_folder) if owner else None
            except FolderInUse as error:
                raise StorageFailure(f"{error}: end that process, or give another folder.") from error

    def close(self) -> None:
        """Wait for the last copy and let go of the folder."""
        self.wait()
        if self._lock is not None:
            self._lock.close()

    def latest(self) -> Path | None:
        """Return the newest whole checkpoint of any attempt, linked into this one's folder.

        Broken ones are passed over.
        """
        with writing("Taking over the last checkpoint", self.folder):
            found = self._adopt()
            if self._copies is not None:
                step = number_of(found.name) if found else -1
                rejected = {number_of(path.name) for path in self.folder.glob(f"{_REJECTED}*")}
                if self._copies.fetch_newer(self.folder, self.attempt_folder, step, rejected):
                    found = self._adopt()
            if found and (found / _BEST).exists():
                link(found / _BEST, self.best)
            if found and self._beside is not None:
                for path in found.glob("mined-*"):
                    link(path, self._beside / path.name.removeprefix("mined-"))
        return found

    def _adopt(self) -> Path | None:
        """Link the newest whole checkpoint into this attempt's folder."""
        for path in reversed(self._all()):
            if self._rejected(path).exists() or not _usable(path):
                continue
            own = self.attempt_folder / path.name
            if path != own:
                shutil.rmtree(own, ignore_errors=True)  # what a fetch that was cut short has left
                try:
                    _link_folder(path, own)
                except FileNotFoundError:  # its own attempt lives, and has just dropped it
                    continue
            return own
        return None

    def reject(self, path: Path) -> None:
        """Pass over a checkpoint from now on that looked whole and could not be loaded."""
        with writing("Marking a damaged checkpoint", self.folder):
            self._rejected(path).touch()
            (path / MANIFEST).unlink(missing_ok=True)

    def _rejected(self, path: Path) -> Path:
        return self.folder / f"{_REJECTED}{number_of(path.name)}"

    @property
    def best(self) -> Path:
        """Where this attempt keeps the best weights so far. Each checkpoint holds those of its own time."""
        return self.attempt_folder / _BEST

    def wait(self) -> None:
        """Until the copy of the last checkpoint has been made, where copies are made."""
        if self._copies is not None:
            self._copies.wait()

    def complete(self, step: int, state: TrainingState) -> tuple[int, float]:
        """Make this attempt's checkpoint of ``step`` whole and drop the oldest. Returns (bytes, seconds).

        Raises `StorageFailure` where the disk fails, or where a part of it was deleted: without its parts a
        checkpoint would not be one to go on from.
        """
        begun = time.monotonic()
        path = self.attempt_folder / f"checkpoint-{step}"
        with writing(f"Saving the checkpoint of step {step}", self.attempt_folder):
            self._add_parts(path, state)
            (path / _STATE).write_text(json.dumps(asdict(state)), encoding="utf-8")
            manifest = seal(path, "checkpoint", {"step": step}, hashes=False)
            self._rejected(path).unlink(missing_ok=True)
        self.wait()  # the one that is being copied may be the oldest
        self._drop_oldest()
        if self._copies is not None:
            self._copies.push(self.folder, path)
        return manifest.bytes, time.monotonic() - begun

    def _add_parts(self, path: Path, state: TrainingState) -> None:
        """The best weights so far, and what lies beside."""
        if self.best.exists():
            link(self.best, path / _BEST)
        elif state.best_step is not None:
            raise StorageFailure(
                f"{self.best}, the weights of step {state.best_step}, was deleted during training"
            )
        if self._beside is not None:
            if not self._beside.is_dir():
                raise StorageFailure(f"{self._beside}, the mined negatives, was deleted during training")
            for other in sorted(self._beside.glob("[!.]*")):
                link(other, path / f"mined-{other.name}")

    def _drop_oldest(self) -> None:
        """Of this attempt's own, and of earlier ones what these have made superfluous."""
        found = self._all()
        own = [path for path in found if path.parent == self.attempt_folder]
        for path in own[: -self._keep]:
            shutil.rmtree(path, ignore_errors=True)
        if len(own) < self._keep:
            return
        for path in found:
            earlier = number_of(path.parent.name) < self._attempt
            if earlier and number_of(path.name) <= number_of(own[-1].name):
                with unlocked(path.parent) as free:
                    if free:
                        shutil.rmtree(path, ignore_errors=True)

    @staticmethod
    def state(path: Path) -> TrainingState:
        values = json.loads((path / _STATE).read_text(encoding="utf-8"))
        limits = values.pop("limits", None)
        base = values.pop("base_model_sha256", "")  # of versions that kept nothing else
        values.setdefault("depends_on", {"base model's weights": base} if base else {})
        evaluations = [Evaluation(**found) for found in values.pop("evaluations", [])]
        return TrainingState(**values, evaluations=evaluations, limits=Limits(**limits) if limits else None)

    def _all(self) -> list[Path]:
        """By step, then by attempt."""
        found = [path for path in self.folder.glob("attempt-*/checkpoint-*") if number_of(path.name) >= 0]
        return sorted(found, key=lambda path: (number_of(path.name), number_of(path.parent.name)))


def _usable(path: Path) -> bool:
    """Whole, and with states that can be read: sizes alone do not show a damaged file."""
    try:
        if not is_whole(path):
            return False
        Checkpoints.state(path)
        trainer_state = path / TRAINER_STATE_NAME
        return not trainer_state.exists() or isinstance(json.loads(trainer_state.read_bytes()), dict)
    except (OSError, ValueError, TypeError):
        return False


def _link_folder(source: Path, target: Path) -> None:
    """The manifest last: a copy that is cut short does not count."""
    target.mkdir(parents=True)
    names = sorted(path.relative_to(source) for path in source.rglob("*") if path.is_file())
    for name in sorted(names, key=lambda name: name == Path(MANIFEST)):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        link(source / name, target / name)


def link(source: Path, target: Path) -> None:
    """The same file under a second name; a copy where the file system has no links."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, target)
