"""``reason``. Exit codes: 0 success, 1 the job failed, 2 invalid usage or spec, 3 cancelled, 4 no service."""

import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Column, Table

from client.client import Client
from client.plot import plot as draw
from client.watch import watch as follow
from core.errors import InvalidRequest, ReasonError, ServiceUnreachable
from core.jobs.views import JobView
from core.settings import Settings
from core.spec.files import apply_settings, read_spec
from core.stack import has_pylate, installed, stack_name

app = typer.Typer(
    help="Train retrieval models on your own documents.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
console = Console(stderr=True, markup=False)  # what jobs say is text, brackets and all

_EXITS = {"succeeded": 0, "failed": 1, "cancelled": 3, "paused": 3}

JobId = Annotated[str, typer.Argument(help="Job id, as printed by reason submit.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, for scripts.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Change a field of the spec.")
]


def main() -> None:
    """The entry point: turn errors of the service into a message and an exit code."""
    passed_on = _PASSED_ON.get(sys.argv[1] if len(sys.argv) > 1 else "")
    if passed_on:
        # In our place, not as a child: signals reach the command itself, and its exit code is ours.
        os.execv(sys.executable, [sys.executable, "-m", *passed_on, *sys.argv[2:]])  # noqa: S606
    try:
        app()
    except ServiceUnreachable as error:
        _fail(str(error), 4)
    except InvalidRequest as error:
        _fail(
            "\n        ".join([str(error), *(f"{item.path}: {item.message}" for item in error.problems[1:])]),
            2,
        )
    except ReasonError as error:
        _fail(str(error), 2 if error.status < 500 else 1)
    except ValidationError as error:
        _fail(f"invalid setting: {_settings_problem(error)}", 2)
    except BrokenPipeError:  # `reason logs ID | head`
        sys.exit(0)


_PASSED_ON = {
    # Programs of their own: the client does not import them.
    "api": ["api"],
    "worker": ["worker"],
    "keys": ["api", "keys"],
    "run": ["core.cli.run"],
}


def _settings_problem(error: ValidationError) -> str:
    return "; ".join(
        f"REASON_{'.'.join(str(part) for part in item['loc']).upper()}: {item['msg']}"
        for item in error.errors()
    )


def _fail(sentence: str, code: int) -> None:
    print(f"reason: {sentence}", file=sys.stderr)
    sys.exit(code)


def _client() -> Client:
    settings = Settings()
    return Client(settings.api_url, settings.api_key.get_secret_value() if settings.api_key else None)


def _print_json(value: Any) -> None:
    print(json.dumps(value))


def _print_job(job: JobView, as_json: bool) -> None:
    if as_json:
        _print_json(job.model_dump(mode="json"))
        return
    print(f"{job.id}  {job.kind}  {job.state}" + (f"  ({job.phase})" if job.phase else ""))
    if job.name:
        print(f"  name      {job.name}")
    if job.queue_position is not None:
        print(f"  queue     {job.queue_position} jobs before it")
    if job.progress.total_steps:
        print(f"  step      {job.progress.step} of {job.progress.total_steps}")
    for name, value in job.latest.items():
        if value is not None:
            print(f"  {name:<9} {value:.6g}")
    if job.end_reason:
        print(f"  end       {job.end_reason.code}: {job.end_reason.message}")
    for name, reference in job.outputs.items():
        print(f"  {name:<9} {reference}")


def _exit_with(job: JobView) -> None:
    raise typer.Exit(_EXITS[job.state])


# -- commands with an epilog that shows one in use -------------------------------------------------


@app.command(epilog="example: reason serve --port 8000")
def serve(
    host: Annotated[
        str, typer.Option(help="Address to listen on. Other than loopback needs an API key.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
) -> None:
    """Run the whole service on this machine: API and worker."""
    from client.serve import serve as run

    raise typer.Exit(run(host, port))


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
    with _client() as client:
        job = client.submit(data, idempotency_key=key)
        if not watch:
            _print_job(job, True) if as_json else print(job.id)
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
    with _client() as client:
        found = client.estimate(data)
    if as_json:
        _print_json(found.model_dump(mode="json"))
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
    _print_table(table)
    for note in found.notes:
        print(note, file=sys.stderr)


@app.command(epilog="example: reason watch job_01k9...")
def watch(job_id: JobId, as_json: Json = False) -> None:
    """Follow a job to its end."""
    with _client() as client:
        _watch(client, job_id, as_json)


def _watch(client: Client, job_id: str, as_json: bool) -> None:
    try:
        job = follow(client, job_id, console)
    except KeyboardInterrupt:
        console.print(f"The job continues to run. To cancel it: reason cancel {job_id}", highlight=False)
        raise typer.Exit(130) from None
    _print_job(job, as_json)
    _exit_with(job)


@app.command(epilog="example: reason show job_01k9... --json")
def show(job_id: JobId, as_json: Json = False) -> None:
    """Show a job."""
    with _client() as client:
        _print_job(client.job(job_id), as_json)


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
    labels = [item.replace("=", ":", 1) for item in label or []] or None
    with _client() as client:
        found = []
        for job in client.jobs(limit=limit, state=state, kind=kind, label=labels):
            found.append(job)
            if len(found) == limit:
                break
    if as_json:
        _print_json([job.model_dump(mode="json") for job in found])
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
    _print_table(table)


def _print_table(table: Table) -> None:
    """As wide as it needs to be where nobody looks: scripts cut columns, not we."""
    console = Console()
    (console if console.is_terminal else Console(width=250)).print(table)


def _act(verb: str, job_id: str, as_json: bool) -> None:
    with _client() as client:
        job: JobView = getattr(client, verb)(job_id)
    _print_job(job, as_json)


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
    with _client() as client:
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
    with _client() as client:
        series = client.metrics(job_id, name)
        title = client.job(job_id).name or job_id
    if plot is not None:
        draw(series, plot, title)
        console.print(f"{plot}", highlight=False)
    if as_json:
        _print_json([item.model_dump(mode="json") for item in series])
    elif plot is None:
        for item in series:
            values = [point.value for point in item.points if point.value is not None]
            if values:
                curve = f"first {values[0]:<12.6g} last {values[-1]:<12.6g}"
                print(f"{item.name:<20} {curve} {item.total_points} points")


@app.command(epilog="example: reason models")
def models(as_json: Json = False) -> None:
    """List models, newest first."""
    with _client() as client:
        found = list(client.models())
    if as_json:
        _print_json([model.model_dump(mode="json") for model in found])
        return
    table = Table(Column("reference", no_wrap=True), "name", "size", "job", "created", box=None)
    for model in found:
        name = f"{model.name}@{model.version}" if model.name else ""
        size = f"{model.bytes / 1e6:.1f} MB"
        table.add_row(f"model:{model.id}", name, size, model.job_id, f"{model.created_at:%Y-%m-%d %H:%M:%S}")
    _print_table(table)


@app.command(epilog="example: reason upload data/tickets.csv --name tickets")
def upload(
    path: Annotated[Path, typer.Argument(help="A file of rows, an archive, or a folder.")],
    name: Annotated[str, typer.Option(help="Name. Changed content under the same name is a new version.")],
    max_reject_share: Annotated[
        float, typer.Option(min=0, max=1, help="Largest share of rows that may be unreadable.")
    ] = 0.0,
    encoding: Annotated[
        str | None, typer.Option(help="Encoding of text files that are not UTF-8: cp1252, shift_jis.")
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            help="role:NAME for a column whose name is not known (query:title), or role:NUMBER for a file "
            "without a header. Repeat it for each column."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Upload a dataset. The service reads all of it first and reports unusable rows with their lines."""
    if not path.exists():
        raise InvalidRequest(f"File or folder not found: {path}")
    try:
        with _client() as client:
            made = client.upload(
                path, name, max_reject_share=max_reject_share, encoding=encoding, columns=columns or ()
            )
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror or error}") from error
    if as_json:
        _print_json(made.model_dump(mode="json"))
        return
    splits = ", ".join(f"{split} {rows}" for split, rows in made.metadata.get("splits", {}).items())
    print(f"dataset:{made.id}  {made.name}@{made.version}  {splits}")


@app.command(epilog="example: reason upload-model data/my-model --name my-model")
def upload_model(
    path: Annotated[Path, typer.Argument(help="A model's folder, or a tar or zip of one.")],
    name: Annotated[str, typer.Option(help="Name. Changed content under the same name is a new version.")],
    as_json: Json = False,
) -> None:
    """Upload a model with weights in safetensors. Its files are checked; jobs refer to it as model:NAME."""
    if not path.exists():
        raise InvalidRequest(f"File or folder not found: {path}")
    try:
        with _client() as client:
            made = client.upload_model(path, name)
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror or error}") from error
    if as_json:
        _print_json(made.model_dump(mode="json"))
        return
    family = made.metadata.get("family") or "family unknown: jobs must name it"
    print(f"model:{made.id}  {made.name}@{made.version}  {family}  {made.bytes / 1e6:.1f} MB")
    if left_out := made.metadata.get("left_out"):
        console.print(f"Not stored, because such files can run code: {', '.join(left_out)}")


@app.command(epilog="example: reason datasets")
def datasets(as_json: Json = False) -> None:
    """List datasets, newest first."""
    with _client() as client:
        found = list(client.datasets())
    if as_json:
        _print_json([dataset.model_dump(mode="json") for dataset in found])
        return
    table = Table(Column("reference", no_wrap=True), "name", "rows", "size", "job", "created", box=None)
    for dataset in found:
        table.add_row(
            f"dataset:{dataset.id}",
            f"{dataset.name}@{dataset.version}" if dataset.name else "",
            ", ".join(f"{split} {rows}" for split, rows in dataset.metadata.get("splits", {}).items()),
            f"{dataset.bytes / 1e6:.1f} MB",
            dataset.job_id or "",
            f"{dataset.created_at:%Y-%m-%d %H:%M:%S}",
        )
    _print_table(table)


@app.command(epilog="example: reason download job:job_01k9.../model data/my-model")
def download(
    reference: Annotated[str, typer.Argument(help="job:ID/OUTPUT, model:ID or model:NAME@VERSION.")],
    folder: Annotated[Path, typer.Argument(help="Folder to write the files to.")],
    as_json: Json = False,
) -> None:
    """Download an artifact and verify its checksums. The same command resumes an interrupted download."""
    if folder.exists() and not folder.is_dir():
        raise InvalidRequest(f"{folder} is a file, not a folder")
    try:
        with _client() as client:
            artifact = client.download(reference, folder)
    except OSError as error:
        raise InvalidRequest(f"{folder} cannot be written: {error.strerror}") from error
    if as_json:
        _print_json(artifact.model_dump(mode="json"))
    else:
        print(f"{len(artifact.files)} files, {artifact.bytes / 1e6:.1f} MB in {folder}")


@app.command(epilog="example: reason workers")
def workers(as_json: Json = False) -> None:
    """List the workers with a heartbeat in the last minute."""
    with _client() as client:
        found = client.workers()
    if as_json:
        _print_json([worker.model_dump(mode="json") for worker in found])
        return
    table = Table(Column("id", no_wrap=True), "state", "running", "GPUs", "memory", box=None)
    for worker in found:
        gpus = ", ".join(gpu.name for gpu in worker.gpus) or "none"
        table.add_row(
            worker.id,
            worker.state,
            f"{worker.running}/{worker.slots}",
            gpus,
            f"{worker.memory_bytes / 1e9:.0f} GB",
        )
    _print_table(table)


@app.command(epilog="example: reason doctor")
def doctor(as_json: Json = False) -> None:
    """Show the installed stack of training libraries, and what it supports."""
    found = {"stack": stack_name(), "python": platform.python_version(), **installed()}
    found["plaid"] = "yes" if has_pylate() else "no: index plaid needs PyLate (the default stack)"
    if as_json:
        _print_json(found)
        return
    for name, value in found.items():
        print(f"{name:<24}{value}")


@app.command(epilog="example: reason demo")
def demo(
    full: Annotated[
        bool, typer.Option("--full", help="Use all pairs of the standard library instead of 512.")
    ] = False,
    port: Annotated[int, typer.Option(help="Port of the service. 0: any free port.")] = 0,
    as_json: Json = False,
) -> None:
    """Run a demonstration: start the service, build a dataset, train, compare, stop."""
    from client.demo import run

    raise typer.Exit(run(full=full, port=port, as_json=as_json))


database = typer.Typer(help="Manage the database.", no_args_is_help=True)
app.add_typer(database, name="db")


@database.command(epilog="example: reason db upgrade")
def upgrade() -> None:
    """Upgrade the database schema to the newest version."""
    raise typer.Exit(subprocess.run([sys.executable, "-m", "migrations"], check=False).returncode)


@app.command(context_settings={"ignore_unknown_options": True}, add_help_option=False)
def run() -> None:
    """Run a job without the service: reason run SPEC.yaml --out DIR."""


@app.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True}, add_help_option=False
)
def search(context: typer.Context) -> None:
    """Search a corpus: reason search job:ID/embeddings "how do I ..."."""
    arguments = list(context.args)
    if any(argument.startswith(("job:", "model:", "artifact:")) for argument in arguments):
        from client.search import localized

        with _client() as client:
            arguments = localized(arguments, client, Settings())
    os.execv(sys.executable, [sys.executable, "-m", "core.cli.search", *arguments])  # noqa: S606


@app.command(add_help_option=False)
def api() -> None:
    """Run only the HTTP server."""


@app.command(add_help_option=False)
def worker() -> None:
    """Run only a worker."""


@app.command(add_help_option=False)
def keys() -> None:
    """Create, list and revoke API keys."""


if __name__ == "__main__":
    main()
