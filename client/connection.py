"""Requests to one service: retried where that is safe, with the errors of `core.errors`."""

import json
import random
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar
from urllib.parse import quote

import httpx

from core.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    InvalidRequest,
    NotFound,
    Problem,
    ReasonError,
    ServiceUnreachable,
    TooLarge,
    TooManyRequests,
    Unauthorized,
    Unavailable,
)
from core.jobs.events import EventType
from core.jobs.state import JobState
from core.jobs.views import EventView, JobView, PipelineView

_BY_STATUS: dict[int, type[ReasonError]] = {
    error.status: error
    for error in (
        InvalidRequest,
        BadRequest,
        Unauthorized,
        Forbidden,
        NotFound,
        Conflict,
        TooLarge,
        TooManyRequests,
        Unavailable,
    )
}
ATTEMPTS = 5
STREAM_TIMEOUT = httpx.Timeout(30, read=60)

_EVENT_TYPES = frozenset(kind.value for kind in EventType)

Event = TypeVar("Event", bound=EventView)
Ended = TypeVar("Ended", JobView, PipelineView)


class Connection:
    """``http`` is the client of httpx, for streams. Raises `ServiceUnreachable` where nobody answers."""

    def __init__(self, url: str, key: str | None, timeout: float, retries: int) -> None:
        self.url = url.rstrip("/")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.http = httpx.Client(base_url=self.url, headers=headers, timeout=timeout)
        self.retries = max(1, retries)

    def pages(self, path: str, **params: Any) -> Iterator[dict[str, Any]]:
        """The pages of a list, one after the other. Parameters that are None are left out."""
        while True:
            page = self.json(
                "GET", path, params={name: value for name, value in params.items() if value is not None}
            )
            yield page
            if page["next_cursor"] is None:
                return
            params["cursor"] = page["next_cursor"]

    def json(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        data: dict[str, Any] = self.request(method, path, **options).json()
        return data

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        repeatable = method == "GET" or "Idempotency-Key" in options.get("headers", {})
        for attempt in range(self.retries):
            last = attempt == self.retries - 1
            try:
                response = self.http.request(method, path, **options)
            except httpx.TransportError as error:
                # Where nobody answered, nothing was sent.
                if last or not (repeatable or isinstance(error, httpx.ConnectError)):
                    raise self.unreachable(error) from error
            except httpx.InvalidURL as error:
                raise ServiceUnreachable(f"{self.url} is not a URL: {error}") from error
            else:
                if response.status_code not in (429, 503) or last or not repeatable:
                    break
                if response.status_code == 429:  # somebody at this address sends wrong keys
                    time.sleep(min(float(response.headers.get("Retry-After", 1)), 5.0))
            # Drawn, so that callers which failed together do not return together.
            time.sleep(2.0**attempt / 8 * random.uniform(0.5, 1.5))  # noqa: S311 - not a secret
        if response.is_error:
            raise error_of(response)
        return response

    def unreachable(self, error: Exception) -> ServiceUnreachable:
        return ServiceUnreachable(
            f"No service answers at {self.url} ({error}). Run reason serve, or set REASON_API_URL."
        )

    def listen(self, path: str, after: int, model: type[Event]) -> Iterator[Event]:
        """Iterate over a stream of events as they happen, to its end. A broken connection is resumed."""
        failures = 0
        while True:
            try:
                for event in self._listen(path, after, model):
                    after, failures = event.seq, 0
                    yield event
                return
            except httpx.TransportError as error:
                failures += 1
                if failures >= self.retries:
                    raise self.unreachable(error) from error
                time.sleep(pause_before(failures))

    def _listen(self, path: str, after: int, model: type[Event]) -> Iterator[Event]:
        headers = {"Last-Event-ID": str(after)} if after else {}
        with self.http.stream("GET", path, headers=headers, timeout=STREAM_TIMEOUT) as response:
            if response.is_error:
                response.read()
                raise error_of(response)
            for line in response.iter_lines():
                if (event := event_of(line, model)) is not None:
                    yield event


def pause_before(failures: int) -> float:
    """Seconds until a broken stream is resumed; drawn, so that readers who were cut off together do not come
    back together."""
    return min(2.0**failures / 4, 5) * random.uniform(0.5, 1.0)  # noqa: S311 - not a secret


def is_at_rest(found: JobView | PipelineView) -> bool:
    """Whether it has ended, or is paused: nothing more comes by itself."""
    return found.state.final or found.state is JobState.PAUSED


def event_of(line: str, model: type[Event]) -> Event | None:
    """The event of a line of a stream; None for what is no event, or of a type that this version does not
    know."""
    if not line.startswith("data:"):
        return None
    event = json.loads(line.removeprefix("data:"))
    return model.model_validate(event) if is_known(event) else None


def is_known(event: Mapping[str, Any]) -> bool:
    """Whether this version knows the type of an event: a newer server may send others, which are skipped."""
    return event.get("type") in _EVENT_TYPES


def wait_for(look: Callable[[], Ended], what: str, timeout: float | None, poll_seconds: float) -> Ended:
    """Look until a job or a pipeline has ended or is paused. Raises `TimeoutError`."""
    end = None if timeout is None else time.monotonic() + timeout
    while True:
        found = look()
        if is_at_rest(found):
            return found
        if end is not None and time.monotonic() > end:
            raise TimeoutError(f"{what} is still {found.state} after {timeout:g} s")
        time.sleep(poll_seconds)


def error_of(response: httpx.Response) -> ReasonError:
    """The error that an answer with an error's status describes."""
    try:
        body = response.json()
        detail = str(body["detail"])
        problems = [Problem(item["path"], item["message"]) for item in body.get("errors", [])]
    except (ValueError, KeyError, TypeError):
        detail, problems = f"{response.status_code} {response.reason_phrase} from {response.url}", []
    error = _BY_STATUS.get(response.status_code, ReasonError)(detail)
    error.problems = problems
    return error


def quoted(part: str) -> str:
    """Quote a path segment, so that no id can change the rest of the URL."""
    return quote(part, safe="")
