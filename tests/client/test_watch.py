"""What following a job leaves in a log, where nothing can be drawn twice."""

from io import StringIO
from types import SimpleNamespace

from rich.console import Console

from client.watch import watch
from core.jobs.events import EventData, Metrics, PhaseChange, Progress, StateChange
from core.jobs.state import JobState


def followed(told: list[EventData], *, terminal: bool) -> str:
    out = StringIO()
    client = SimpleNamespace(
        stream=lambda _: (SimpleNamespace(data=data) for data in told),
        job=lambda _: SimpleNamespace(state=JobState.SUCCEEDED),
    )
    watch(client, "job_1", Console(file=out, force_terminal=terminal, width=200))
    return out.getvalue()


def told() -> list[EventData]:
    steps = [
        data
        for step in range(1, 201)
        for data in (
            Metrics(step=step, values={"loss": 1 / step}),
            Progress(fraction=step / 200, step=step, total_steps=200, eta_seconds=200.0 - step),
        )
    ]
    started = [StateChange(state=JobState.RUNNING, attempt=1), PhaseChange(phase="training")]
    return [*started, *steps, StateChange(state=JobState.SUCCEEDED)]


def test_a_log_has_a_line_for_every_tenth():
    lines = followed(told(), terminal=False).splitlines()
    assert len(lines) == 10
    assert lines[0] == "training  20/200  loss 0.0500  about 3:00 left"
    assert lines[-1] == "training  200/200  loss 0.0050"


def test_a_terminal_has_its_live_line_alone():
    assert "\x1b" in followed(told(), terminal=True)
    assert "training  20/200" not in followed(told(), terminal=True)
