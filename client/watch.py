"""A job's progress on a terminal: one live line, and what happened above it."""

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from client.client import Client
from core.jobs.events import EventType
from core.jobs.views import EventView, JobView


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
    with Progress(*columns, console=console, transient=True) as progress:
        line = _Line(console, progress)
        for event in client.stream(job_id):
            line.show(event)
            # An old pause may be told again; only one that still lasts is the end of the story.
            paused = event.type is EventType.STATE and event.data["state"] == "paused"
            if paused and client.job(job_id).state == "paused":
                break
    return client.job(job_id)


class _Line:
    def __init__(self, console: Console, progress: Progress) -> None:
        self._console, self._progress = console, progress
        self._task = progress.add_task("", total=1, phase="queued", step="", note="", eta="")
        self._notes: dict[str, str] = {}

    def show(self, event: EventView) -> None:
        data = event.data
        match event.type:
            case EventType.STATE:
                self._state(event)
            case EventType.PHASE:
                self._progress.update(self._task, phase=data["phase"])
            case EventType.PROGRESS:
                eta = data.get("eta_seconds")
                self._progress.update(
                    self._task,
                    completed=data["fraction"],
                    step=f"{data['step']}/{data['total_steps']}",
                    eta=f"about {_duration(eta)} left" if eta else "",
                )
            case EventType.METRIC:
                self._metric(data["step"], data["values"])
            case EventType.NOTICE:
                style = {"warning": "yellow", "error": "red"}.get(data["level"], "dim")
                self._console.print(data["message"], style=style, highlight=False)
            case EventType.CHECKPOINT:
                self._console.print(f"checkpoint at step {data['step']}", style="dim", highlight=False)

    def _state(self, event: EventView) -> None:
        state, attempt = event.data["state"], event.data["attempt"]
        if state == "running" and attempt > 1:
            self._console.print(f"attempt {attempt} begins", style="yellow", highlight=False)
        elif state == "queued" and event.data.get("reason"):
            self._console.print(
                f"back to the queue: {event.data['message']}", style="yellow", highlight=False
            )
        self._progress.update(self._task, phase=state)

    def _metric(self, step: int, values: dict[str, float | None]) -> None:
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
