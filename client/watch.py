"""A job's progress on a terminal: one live line, and what happened above it. In a log: a line every tenth."""

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from client.client import Client
from core.jobs.events import CheckpointSaved, Metrics, Notice, PhaseChange, Progress, StateChange
from core.jobs.state import JobState
from core.jobs.views import EventView, JobView, PipelineView

_STYLES = {"warning": "yellow", "error": "red"}


def watch(client: Client, job_id: str, console: Console) -> JobView:
    """Follows a job to its end, or its pause, and returns it."""
    with _bars(console) as progress:
        line = _Line(console, progress)
        for event in client.stream(job_id):
            line.show(event)
            # An old pause may be told again; only one that still lasts is the end of the story.
            paused = isinstance(event.data, StateChange) and event.data.state is JobState.PAUSED
            if paused and client.job(job_id).state is JobState.PAUSED:
                break
    return client.job(job_id)


def watch_pipeline(client: Client, pipeline_id: str, console: Console) -> PipelineView:
    """Follows a pipeline to its end, or its pause, with a line for each stage that runs, and returns it."""
    with _bars(console) as progress:
        lines: dict[str, _Line] = {}
        for event in client.pipelines.stream(pipeline_id):
            change = event.data if isinstance(event.data, StateChange) else None
            state = change.state if change else None
            if event.stage not in lines and state is not JobState.RUNNING:
                if change and state is JobState.CANCELLED:
                    console.print(f"{event.stage}: {change.message}", style="yellow", highlight=False)
                continue
            line = lines.setdefault(event.stage, _Line(console, progress, event.stage))
            line.show(event)
            if change and (change.state.final or state is JobState.PAUSED):
                lines.pop(event.stage).close(change)
            if state is JobState.PAUSED and client.pipelines.get(pipeline_id).state is JobState.PAUSED:
                break
    return client.pipelines.get(pipeline_id)


def _bars(console: Console) -> Bars:
    return Bars(
        TextColumn("[bold]{task.fields[phase]}"),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[step]}"),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[eta]}"),
        console=console,
        transient=True,
        refresh_per_second=4,
        disable=not console.is_terminal,  # else it draws ten times a second for nobody
    )


class _Line:
    """The live line of one job; ``stage`` is its name in a pipeline."""

    def __init__(self, console: Console, progress: Bars, stage: str = "") -> None:
        self._console, self._progress = console, progress
        self._before = f"{stage}: " if stage else ""
        self._task = progress.add_task("", total=1, phase=f"{self._before}queued", step="", note="", eta="")
        self._notes: dict[str, str] = {}
        self._phase, self._tenths = "", 0

    def show(self, event: EventView) -> None:
        match event.data:
            case StateChange() as change:
                self._state(change)
            case PhaseChange(phase=phase):
                self._phase = phase
                self._progress.update(self._task, phase=self._before + phase)
            case Progress(fraction=fraction, step=step, total_steps=total, eta_seconds=eta):
                left = f"about {_duration(eta)} left" if eta else ""
                self._progress.update(self._task, completed=fraction, step=f"{step}/{total}", eta=left)
                self._log(fraction, f"{step}/{total}", left)
            case Metrics(step=step, values=values):
                self._metrics(step, values)
            case Notice(level=level, message=message):
                self._print(message, _STYLES.get(level, "dim"))
            case CheckpointSaved(step=step):
                self._print(f"checkpoint at step {step}", "dim")

    def _state(self, change: StateChange) -> None:
        if change.state is JobState.RUNNING and change.attempt > 1:
            self._print(f"attempt {change.attempt} starts", "yellow")
        elif change.state is JobState.QUEUED and change.reason:
            self._print(f"back to the queue: {change.message}", "yellow")
        self._progress.update(self._task, phase=self._before + change.state.value)

    def _log(self, fraction: float, step: str, left: str) -> None:
        """What the live line would show, where there is none."""
        if self._progress.disable and int(10 * fraction) > self._tenths:
            self._tenths = int(10 * fraction)
            self._print("  ".join(filter(None, (self._phase, step, *self._notes.values(), left))), None)

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
            # Jobs that evaluate have no steps.
            self._print((f"step {step}: " if step else "") + "  ".join(scores))

    def close(self, change: StateChange) -> None:
        """The job runs no more: its line goes, and a sentence stays."""
        self._progress.remove_task(self._task)
        reused = f", reused from {change.reused_from}" if change.reused_from else ""
        style = "green" if change.state is JobState.SUCCEEDED else "yellow"
        self._print(change.state.value + reused, style)

    def _print(self, sentence: str, style: str | None = None) -> None:
        self._console.print(self._before + sentence, style=style, highlight=False)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
