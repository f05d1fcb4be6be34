"""Who listens to a job: a file of JSON lines, a console, or nobody. Training knows the protocol alone."""

import json
import math
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from core.errors import StorageFailure
from core.jobs.events import CheckpointSaved, Event, Metrics, Notice, PhaseChange, Progress
from core.jobs.reasons import lost_run_folder
from core.spec.parts.evaluation import TRIPLET_METRICS

_STYLES = {"warning": "yellow", "error": "red"}
"""Of a notice on a terminal, by its level; others are dim."""


class Reporter(Protocol):
    """Takes a job's events, from any of its threads."""

    def emit(self, event: Event) -> None: ...


class NullReporter:
    """Nobody listens."""

    def emit(self, event: Event) -> None:
        pass


class RecordingReporter:
    """Keeps every event, for tests and benchmarks."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        self.events.append(event)


class JsonlReporter:
    """One line an event, appended by one system call, so that a reader never meets half of one for long."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._written = os.fstat(self._descriptor).st_size
        self._break = ""
        self._lock = threading.Lock()

    def emit(self, event: Event) -> None:
        """Append the event. Raises `OSError`, and `StorageFailure` where the open file is no longer there.

        A file that was deleted or replaced takes every write without an error, and its reader sees none.
        """
        line = json.dumps(finite(event.model_dump(mode="json")), ensure_ascii=False)
        with self._lock:
            self._check()
            rest = memoryview(f"{self._break}{line}\n".encode())
            self._break = "\n"  # should the disk fill up within the line, the next one begins anew
            while rest:
                count = os.write(self._descriptor, rest)
                self._written += count
                rest = rest[count:]
            self._break = ""

    def _check(self) -> None:
        ours = os.fstat(self._descriptor)
        try:
            there = self._path.stat()
        except OSError:
            there = None
        if there is None or not os.path.samestat(ours, there) or ours.st_size < self._written:
            raise StorageFailure(lost_run_folder(self._path.parent))


def finite(value: Any) -> Any:
    """NaN and infinities as None: JSON has no word for them, and a loss may well be one."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


class ConsoleReporter:
    """Live lines on a terminal, a pipe or a notebook, for jobs without a service."""

    def __init__(self) -> None:
        from rich import progress as bars
        from rich.console import Console

        self._console = Console(stderr=True, markup=False)  # messages are text, brackets and all
        self._progress = bars.Progress(
            bars.TextColumn("[bold]{task.description}"),
            bars.BarColumn(),
            bars.TextColumn("{task.completed:.0f}/{task.total:.0f} {task.fields[note]}"),
            bars.TimeElapsedColumn(),
            bars.TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._task = self._progress.add_task("starting", total=1, note="")
        self._progress.start()

    def emit(self, event: Event) -> None:
        match event.data:
            case PhaseChange(phase=phase):
                self._console.print(phase, style="bold")
                self._progress.update(self._task, description=phase)
            case Progress(step=step, total_steps=total) if total:
                self._progress.update(self._task, completed=step, total=total)
            case Metrics(step=step, values=values):
                self._metrics(step, values)
            case Notice(level=level, message=message):
                self._console.print(message, style=_STYLES.get(level, "dim"), highlight=False)
            case CheckpointSaved(step=step):
                self._console.print(f"checkpoint at step {step}", style="dim", highlight=False)

    def _metrics(self, step: int, values: Mapping[str, float | None]) -> None:
        if (loss := values.get("loss")) is not None:
            self._progress.update(self._task, note=f"loss {loss:.4f}")
        scores = {name: value for name, value in values.items() if value is not None and _is_score(name)}
        if scores:
            line = "  ".join(f"{name} {value:.4f}" for name, value in scores.items())
            self._console.print(f"step {step}: {line}", highlight=False)

    def close(self) -> None:
        self._progress.stop()


def _is_score(name: str) -> bool:
    """Of an evaluation; datasets' names may stand before it."""
    metric = name.rpartition("/")[2]
    return "@" in metric or metric in TRIPLET_METRICS
