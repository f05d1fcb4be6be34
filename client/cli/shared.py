"""What every command has in common: the application, its options, and how things are printed."""

import contextlib
import json
from collections.abc import Iterator
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from client.client import Client
from core.errors import ServiceUnreachable
from core.jobs.state import JobState
from core.jobs.views import JobView
from core.settings import Settings

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


def open_client(**options: Any) -> Client:
    """A client of the service that the settings name. Raises `ServiceUnreachable` if they name none."""
    settings = Settings()
    if not settings.api_url:
        raise ServiceUnreachable("REASON_API_URL is empty: it must be the URL of a service")
    return Client(settings.api_url, settings.client_key, **options)


def print_json(value: Any) -> None:
    print(json.dumps(value))


def print_job(job: JobView, as_json: bool) -> None:
    if as_json:
        print_json(job.model_dump(mode="json"))
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
    if job.reused_from:
        print(f"  reused    from {job.reused_from}")
    for name, reference in job.outputs.items():
        print(f"  {name:<9} {reference}")


def print_table(table: Table) -> None:
    """As wide as it needs to be where nobody looks: scripts cut columns, not we."""
    output = Console()
    (output if output.is_terminal else Console(width=250)).print(table)


def exit_with(state: JobState) -> NoReturn:
    raise typer.Exit(_EXITS[state])


@contextlib.contextmanager
def leaving_it_running(what: str, cancel: str) -> Iterator[None]:
    """Ctrl-C ends the command and not what it watches: that is said, with the command that would."""
    try:
        yield
    except KeyboardInterrupt:
        console.print(f"The {what} continues to run. To cancel it: {cancel}", highlight=False)
        raise typer.Exit(130) from None


def label_filters(given: list[str] | None) -> list[str] | None:
    """``key=value`` as people write it, as the service's filters ``key:value``."""
    return [item.replace("=", ":", 1) for item in given or []] or None
