"""Checkpoints: folders that are either whole or not there, the newest few of them."""

import json
import os
import shutil
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from core.artifacts import is_whole, seal
from core.training.batching import Change
from core.training.copies import Copies, number_of
from core.training.recovery import Limits

_STATE = "training_state.json"
_BEST = "best.safetensors"


@dataclass
class TrainingState:
    """What a resumed job must know besides weights, optimizer and random state."""

    evaluations: list[dict[str, Any]] = field(
        default_factory=list
    )  # {step, scores: {dataset: {metric: value}}}
    # step -> dataset -> metric -> query -> value: of the first evaluation, the best and the last.
    by_query: dict[str, dict[str, dict[str, dict[str, float]]]] = field(default_factory=dict)
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
    depends_on: dict[str, str] = field(default_factory=dict)  # see `core.training.resuming`


class Checkpoints:
    """The checkpoints of one job, under one folder. Survives attempts, processes and (when shared) hosts.

    Each attempt writes into a folder of its own: a process that has lost its job without knowing it yet
    cannot spoil what its successor writes.
    """

    def __init__(
        self,
        folder: Path,
        attempt: int,
        keep: int,
        copies: Copies | None = None,
        beside: Path | None = None,
    ) -> None:
        """``beside``: a folder whose files are kept with every checkpoint, and come back with it."""
        self.folder = folder
        self._beside = beside
        self._copies = copies
        self.attempt_folder = folder / f"attempt-{attempt}"
        self._keep = keep
        self.attempt_folder.mkdir(parents=True, exist_ok=True)

    def latest(self) -> Path | None:
        """The newest whole checkpoint of any attempt, on this host or copied. Broken ones are passed over."""
        found = self._latest()
        if self._copies is not None:
            self._copies.fetch_newer(self.folder, number_of(found.name) if found else -1)
            found = self._latest()
        if found and (found / _BEST).exists():
            _link(found / _BEST, self.best)
        if found and self._beside is not None:
            for path in found.glob("mined-*"):
                _link(path, self._beside / path.name.removeprefix("mined-"))
        return found

    def _latest(self) -> Path | None:
        return next((path for path in reversed(self._all()) if is_whole(path)), None)

    @property
    def best(self) -> Path:
        """Where this attempt keeps the best weights so far. Each checkpoint holds those of its own time."""
        return self.attempt_folder / _BEST

    def wait(self) -> None:
        """Until the copy of the last checkpoint has been made, where copies are made."""
        if self._copies is not None:
            self._copies.wait()

    def complete(self, step: int, state: TrainingState) -> tuple[int, float]:
        """Makes this attempt's checkpoint of ``step`` whole, drops the oldest. Returns (bytes, seconds)."""
        begun = time.monotonic()
        path = self.attempt_folder / f"checkpoint-{step}"
        if self.best.exists():
            _link(self.best, path / _BEST)
        for other in sorted(self._beside.glob("[!.]*")) if self._beside is not None else ():
            _link(other, path / f"mined-{other.name}")
        (path / _STATE).write_text(json.dumps(asdict(state)), encoding="utf-8")
        manifest = seal(path, "checkpoint", {"step": step}, hashes=False)
        self.wait()  # the one that is being copied may be the oldest
        for old in self._all()[: -self._keep]:
            shutil.rmtree(old)
        if self._copies is not None:
            self._copies.push(self.folder, path)
        return manifest.bytes, time.monotonic() - begun

    @staticmethod
    def state(path: Path) -> TrainingState:
        values = json.loads((path / _STATE).read_text(encoding="utf-8"))
        limits = values.pop("limits", None)
        base = values.pop("base_model_sha256", "")  # of versions that kept nothing else
        values.setdefault("depends_on", {"base model's weights": base} if base else {})
        return TrainingState(**values, limits=Limits(**limits) if limits else None)

    def _all(self) -> list[Path]:
        """By step, then by attempt."""
        found = [path for path in self.folder.glob("attempt-*/checkpoint-*") if number_of(path.name) >= 0]
        return sorted(found, key=lambda path: (number_of(path.name), number_of(path.parent.name)))


def _link(source: Path, target: Path) -> None:
    """The same file under a second name; a copy where the file system has no links."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
