"""The service of the settings, or one of the command's own, and a pipeline followed there to its end."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import typer

from client.cli.shared import console, open_client, print_json
from client.client import Client
from client.improve import fetch_outputs, service_here, show_end, show_interrupted, show_others
from client.watch import watch_pipeline
from core.errors import ServiceUnreachable
from core.jobs.views import PipelineView
from core.settings import Settings


@contextlib.contextmanager
def service_or_own(needed_later: str | None = None) -> Iterator[tuple[Client, bool]]:
    """The service of the settings; where none answers at the usual place, one of this command's own.

    ``needed_later``: the option that needs a service which goes on running. Yields (client, whether the
    service is of this command). Raises `ServiceUnreachable`.
    """
    settings = Settings()
    if _answers(settings, needed_later):
        console.print(f"Using the service at {settings.api_url}.", highlight=False, soft_wrap=True)
        with open_client() as client:
            yield client, False
        return
    with service_here(settings, console) as client:
        yield client, True


def _answers(settings: Settings, needed_later: str | None) -> bool:
    try:
        with open_client(retries=1) as client:
            client.workers()
    except ServiceUnreachable as error:
        if needed_later:
            raise ServiceUnreachable(
                f"{needed_later} needs a service that goes on running. {error}"
            ) from error
        if settings.api_url and "api_url" in settings.model_fields_set:
            raise
        return False
    return True


def follow_to_end(
    client: Client, made: PipelineView, as_json: bool, *, later: bool, out: Path | None = None
) -> PipelineView:
    """Watch a pipeline, then say how it ended. Ctrl-C stops the watching, with what to do next (exit 130).

    ``later``: the service ends with this command, so what is left goes on at the next one. ``out``: a folder
    to which the outputs are downloaded.
    """
    print(made.id, file=sys.stderr)
    show_others(client, made, console)
    try:
        ended = watch_pipeline(client, made.id, console)
    except KeyboardInterrupt:
        show_interrupted(made, console, later=later)
        raise typer.Exit(130) from None
    if as_json:
        print_json(ended.model_dump(mode="json"))
    if out is not None:
        fetch_outputs(client, ended, out, console)
    show_end(client, ended, console, later=later, out=out)
    return ended
