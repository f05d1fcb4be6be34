"""The service of the settings, or one of the command's own."""

import contextlib
from collections.abc import Iterator

from client.cli.shared import console, open_client
from client.client import Client
from client.improve import service_here
from core.errors import ServiceUnreachable
from core.settings import Settings


@contextlib.contextmanager
def service_or_own(needed_later: str | None = None) -> Iterator[tuple[Client, bool]]:
    """The service of the settings; where none answers at the usual place, one of this command's own.

    ``needed_later``: the option that needs a service which goes on running. Yields (client, whether the
    service is of this command). Raises `ServiceUnreachable`.
    """
    settings = Settings()
    with open_client(retries=1) as client:
        try:
            client.workers()
            answered = True
        except ServiceUnreachable as error:
            answered = False
            if needed_later:
                raise ServiceUnreachable(
                    f"{needed_later} needs a service that goes on running. {error}"
                ) from error
            if "api_url" in settings.model_fields_set:
                raise
    if answered:
        with open_client() as client:
            yield client, False
        return
    with service_here(settings, console) as client:
        yield client, True
