"""Checkpoints: folders that are either whole or not there, the newest few of them."""

import json
import shutil
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from core.artifacts import is_whole, seal

_STATE = "training_state.json"


@dataclass
class TrainingState:
    """What a resumed job must know besides weights, optimizer and random state."""

    evaluations: list[dict[str, Any]] = field(
        default_factory=list
    )  # {step, scores: {dataset: {metric: value}}}
    best_step: int | None = None
    best_score: float | None = None
    best_by_dataset: dict[str, float] = field(default_factory=dict)
    stalled: dict[str, int] = field(default_factory=dict)  # evaluations without a rise
    tokens_seen: int = 0
    training_seconds: float = 0.0


class Checkpoints:
    """The checkpoints of one job, under one folder. Survives attempts, processes and (when shared) hosts."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self._keep = keep
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, step: int) -> Path:
        return self.folder / f"checkpoint-{step}"

    def latest(self) -> Path | None:
        """The newest whole checkpoint. Broken ones are passed over."""
        return next((path for path in reversed(self._all()) if is_whole(path)), None)

    def complete(self, step: int, state: TrainingState) -> tuple[int, float]:
        """Makes the checkpoint of ``step`` whole, then drops the oldest. Returns (bytes, seconds)."""
        begun = time.monotonic()
        path = self.path(step)
        (path / _STATE).write_text(json.dumps(asdict(state)), encoding="utf-8")
        manifest = seal(path, "checkpoint", {"step": step}, hashes=False)
        for old in self._all()[: -self._keep]:
            shutil.rmtree(old)
        return manifest.bytes, time.monotonic() - begun

    @staticmethod
    def state(path: Path) -> TrainingState:
        return TrainingState(**json.loads((path / _STATE).read_text(encoding="utf-8")))

    def _all(self) -> list[Path]:
        found = [
            path for path in self.folder.glob("checkpoint-*") if path.name.rpartition("-")[2].isdecimal()
        ]
        return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))
