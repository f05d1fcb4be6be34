"""Runs jobs without a service, stops them on the way, and compares what they told and made."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from core.jobs.events import Event, EventType
from core.jobs.protocol import RunResult
from core.process.local import run_local
from core.runtime.context import StopSignal
from core.runtime.reporter import RecordingReporter


class StopAt(RecordingReporter):
    """Asks the job to stop once it has reported a step."""

    def __init__(self, step: int, why: str = "cancel") -> None:
        super().__init__()
        self.stop, self._step, self._why = StopSignal(), step, why

    def emit(self, event: Event) -> None:
        super().emit(event)
        if event.type is EventType.METRIC and event.data.step >= self._step and "loss" in event.data.values:
            self.stop.request(self._why)


def run(spec: dict, out: Path, **options) -> tuple[RunResult, list[Event]]:
    reporter = options.pop("reporter", None) or RecordingReporter()
    return run_local(spec, out, reporter, **options), reporter.events


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model" / "model.safetensors")


def of(events: list[Event], type: EventType) -> list[dict]:
    return [event.data.model_dump() for event in events if event.type is type]


def warnings(events) -> list[str]:
    return [data["message"] for data in of(events, EventType.NOTICE) if data["level"] == "warning"]


def losses(events) -> list[float]:
    return [data["values"]["loss"] for data in of(events, EventType.METRIC) if "loss" in data["values"]]


def same_losses(events, expected) -> bool:
    """But for the rounding of other sums: a loss near zero has few digits that every machine agrees on."""
    return losses(events) == pytest.approx(losses(expected), rel=1e-4, abs=1e-5)


def equal(first: Path, second: Path, tolerance: float = 2e-4) -> None:
    one, two = weights(first), weights(second)
    for name in one:
        assert torch.allclose(one[name], two[name], atol=tolerance), name
