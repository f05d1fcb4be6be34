"""A job's progress on a terminal: one live line, and what happened above it."""

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from client.client import Client
from core.jobs.events import CheckpointSaved, Metrics, Notice, PhaseChange, Progress, StateChange
from core.jobs.state import JobState
from core.jobs.views import EventView, JobView

_STYLES = {"warning": "yellow", "error": "red"}


def watch(client: Client, job_id: str, console: Console) -> JobView:
    """Follows a job to its end, or its pause, and returns it."""
    columns = (
        TextColumn("[bold]{task.fields[phase]}"),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[step]}"),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[eta]}"),
    )
    with Bars(*columns, console=console, transient=True) as progress:
        line = _Line(console, progress)
        for event in client.stream(job_id):
            line.show(event)
            # An old pause may be told again; only one that still lasts is the end of the story.
            paused = isinstance(event.data, StateChange) and event.data.state is JobState.PAUSED
            if paused and client.job(job_id).state is JobState.PAUSED:
                break
    return client.job(job_id)


class _Line:
    def __init__(self, console: Console, progress: Bars) -> None:
        self._console, self._progress = console, progress
        self._task = progress.add_task("", total=1, phase="queued", step="", note="", eta="")
        self._notes: dict[str, str] = {}

    def show(self, event: EventView) -> None:
        match event.data:
            case StateChange() as change:
                self._state(change)
            case PhaseChange(phase=phase):
                self._progress.update(self._task, phase=phase)
            case Progress(fraction=fraction, step=step, total_steps=total, eta_seconds=eta):
                self._progress.update(
                    self._task,
                    completed=fraction,
                    step=f"{step}/{total}",
                    eta=f"about {_duration(eta)} left" if eta else "",
                )
            case Metrics(step=step, values=values):
                self._metrics(step, values)
            case Notice(level=level, message=message):
                self._console.print(message, style=_STYLES.get(level, "dim"), highlight=False)
            case CheckpointSaved(step=step):
                self._console.print(f"checkpoint at step {step}", style="dim", highlight=False)

    def _state(self, change: StateChange) -> None:
        if change.state is JobState.RUNNING and change.attempt > 1:
            self._console.print(f"attempt {change.attempt} starts", style="yellow", highlight=False)
        elif change.state is JobState.QUEUED and change.reason:
            self._console.print(f"back to the queue: {change.message}", style="yellow", highlight=False)
        self._progress.update(self._task, phase=change.state.value)

    def _metrics(self, step: int, values: dict[str, float | None]) -> None:
        if (loss := values.get("loss")) is not None:
            self._notes["loss"] = f"loss {loss:.4f}"
        if (rate := values.get("samples_per_second")) is not None:
            self._notes["rate"] = f"{rate:.1f} pairs/s"
        self._progress.update(self._task, note="  ".join(self._notes.values()))
        scores = [
            f"{name} {value:.4f}" for name, value in values.items() if "@" in name and value is not None
        ]
        if scores:
            self._console.print(f"step {step}: " + "  ".join(scores), highlight=False)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
