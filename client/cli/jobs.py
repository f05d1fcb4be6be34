"""Commands about jobs: submit, watch, show, stop, and what they have measured."""

import sys
import time
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table

from client.cli.shared import (
    JobId,
    Json,
    Set,
    app,
    console,
    exit_with,
    label_filters,
    leaving_it_running,
    open_client,
    print_job,
    print_json,
    print_table,
)
from client.client import Client
from client.plot import plot as draw
from client.watch import watch as follow
from core.jobs.views import JobView
from core.spec.files import apply_settings, read_spec


@app.command(epilog="example: reason submit configs/train.yaml --set epochs=2 --watch")
def submit(
    spec: Annotated[Path, typer.Argument(help="YAML or JSON job spec.")],
    settings: Set = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show the progress until the job ends.")] = False,
    key: Annotated[
        str | None,
        typer.Option("--idempotency-key", help="With the same key and spec, repeated calls make one job."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Queue a job."""
    data = apply_settings(read_spec(spec), settings or [])
    with open_client() as client:
        job = client.submit(data, idempotency_key=key)
        if not watch:
            print_job(job, True) if as_json else print(job.id)
            return
        print(job.id, file=sys.stderr)
        _watch(client, job.id, as_json)


@app.command(epilog="example: reason estimate configs/train.yaml --set batch_size=256")
def estimate(
    spec: Annotated[Path, typer.Argument(help="YAML or JSON job spec.")],
    settings: Set = None,
    as_json: Json = False,
) -> None:
    """Estimate memory, steps and seconds of a job, and which workers are large enough. Queues nothing."""
    data = apply_settings(read_spec(spec), settings or [])
    with open_client() as client:
        found = client.estimate(data)
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    table = Table("quantity", "value", box=None)
    for name, size in (found.memory or {}).items():
        table.add_row(name if name == "total" else f"  {name}", f"{size / 1e9:.2f} GB")
    if found.least_memory_bytes:
        table.add_row("at least", f"{found.least_memory_bytes / 1e9:.2f} GB")
    table.add_row("steps", "?" if found.steps is None else f"{found.steps:,}")
    table.add_row("seconds", "?" if found.seconds is None else f"{found.seconds:,.0f}")
    table.add_row("device", f"{found.device}, {found.precision}" + (", cached loss" if found.cached else ""))
    for worker in found.workers:
        room = f"{worker.memory_bytes / 1e9:.1f} GB"
        table.add_row(f"worker {worker.host}", f"{room}, {'fits' if worker.fits else 'too small'}")
    print_table(table)
    for note in found.notes:
        print(note, file=sys.stderr)


@app.command(epilog="example: reason watch job_01k9...")
def watch(job_id: JobId, as_json: Json = False) -> None:
    """Follow a job to its end."""
    with open_client() as client:
        _watch(client, job_id, as_json)


def _watch(client: Client, job_id: str, as_json: bool) -> None:
    with leaving_it_running("job", f"reason cancel {job_id}"):
        job = follow(client, job_id, console)
    print_job(job, as_json)
    exit_with(job.state)


@app.command(epilog="example: reason show job_01k9... --json")
def show(job_id: JobId, as_json: Json = False) -> None:
    """Show a job."""
    with open_client() as client:
        print_job(client.job(job_id), as_json)


@app.command(epilog="example: reason why job_01k9...")
def why(job_id: JobId, as_json: Json = False) -> None:
    """Explain why a job is not running."""
    with open_client() as client:
        found = client.why(job_id)
        state = client.job(job_id).state
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    for reason in found.reasons:
        print(reason.message)
    if not found.reasons:
        print(f"The job is {state}.")
    if found.eta_seconds is not None:
        print(f"It may start in about {found.eta_seconds:,.0f} s.")


@app.command(epilog="example: reason change job_01k9... --priority 10 --label team=search")
def change(
    job_id: JobId,
    priority: Annotated[int | None, typer.Option(help="Higher ones are claimed first.")] = None,
    name: Annotated[str | None, typer.Option(help="New name.")] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="key=value, repeatable; in place of all labels.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Change the priority, name or labels of a job."""
    labels = dict(item.partition("=")[::2] for item in label) if label else None
    given = {"priority": priority, "name": name, "labels": labels}
    with open_client() as client:
        changes = {field: value for field, value in given.items() if value is not None}
        print_job(client.change(job_id, **changes), as_json)


@app.command(epilog="example: reason jobs --state running --label team=search")
def jobs(
    state: Annotated[
        str | None, typer.Option(help="waiting, queued, running, paused, succeeded, failed, cancelled")
    ] = None,
    kind: Annotated[str | None, typer.Option()] = None,
    label: Annotated[list[str] | None, typer.Option(help="key=value, repeatable")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500)] = 50,
    as_json: Json = False,
) -> None:
    """List jobs, newest first."""
    with open_client() as client:
        pages = client.jobs(limit=limit, state=state, kind=kind, label=label_filters(label))
        found = list(islice(pages, limit))
    if as_json:
        print_json([job.model_dump(mode="json") for job in found])
        return
    table = Table(Column("id", no_wrap=True), "name", "kind", "state", "step", "loss", "created", box=None)
    for job in found:
        step = f"{job.progress.step}/{job.progress.total_steps}" if job.progress.total_steps else ""
        loss = job.latest.get("loss")
        table.add_row(
            job.id,
            job.name or "",
            job.kind,
            job.state,
            step,
            "" if loss is None else f"{loss:.4f}",
            f"{job.created_at:%Y-%m-%d %H:%M:%S}",
        )
    print_table(table)


def _act(verb: str, job_id: str, as_json: bool) -> None:
    with open_client() as client:
        job: JobView = getattr(client, verb)(job_id)
    print_job(job, as_json)


@app.command(epilog="example: reason cancel job_01k9...")
def cancel(job_id: JobId, as_json: Json = False) -> None:
    """Cancel a job. A running job saves a checkpoint first."""
    _act("cancel", job_id, as_json)


@app.command(epilog="example: reason pause job_01k9...")
def pause(job_id: JobId, as_json: Json = False) -> None:
    """Pause a job. A running job saves a checkpoint first."""
    _act("pause", job_id, as_json)


@app.command(epilog="example: reason resume job_01k9...")
def resume(job_id: JobId, as_json: Json = False) -> None:
    """Resume a paused job from its last checkpoint."""
    _act("resume", job_id, as_json)


@app.command(epilog="example: reason retry job_01k9...")
def retry(job_id: JobId, as_json: Json = False) -> None:
    """Queue a failed or cancelled job again. It continues from its last checkpoint."""
    _act("retry", job_id, as_json)


@app.command(epilog="example: reason logs job_01k9... -f")
def logs(
    job_id: JobId,
    tail: Annotated[
        int | None, typer.Option("--tail", "-n", min=1, help="Only this many of the last lines.")
    ] = None,
    follow_it: Annotated[bool, typer.Option("--follow", "-f", help="Continue until the job ends.")] = False,
) -> None:
    """Print the log of a job."""
    with open_client() as client:
        text, cursor = client.logs(job_id, tail=tail)
        print(text, end="", flush=True)
        while follow_it:
            ended = client.job(job_id).state.final
            text, cursor = client.logs(job_id, after=cursor)
            print(text, end="", flush=True)
            if ended:
                return
            time.sleep(1)


@app.command(epilog="example: reason metrics job_01k9... --plot curves.png")
def metrics(
    job_id: JobId,
    name: Annotated[
        list[str] | None, typer.Option(help="Name of a metric. Repeatable; default: all.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the metrics into a .png, .svg or .pdf file.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print or plot the metrics of a job."""
    with open_client() as client:
        series = client.metrics(job_id, name)
        title = client.job(job_id).name or job_id
    if plot is not None:
        draw(series, plot, title)
        console.print(f"{plot}", highlight=False)
    if as_json:
        print_json([item.model_dump(mode="json") for item in series])
    elif plot is None:
        for item in series:
            values = [point.value for point in item.points if point.value is not None]
            if values:
                curve = f"first {values[0]:<12.6g} last {values[-1]:<12.6g}"
                print(f"{item.name:<20} {curve} {item.total_points} points")
