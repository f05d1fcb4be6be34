"""A job's events as they happen (server-sent events)."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, TypeVar

from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.sse import EventSourceResponse, ServerSentEvent

from api.auth import Authenticator
from api.deps import MAX_NUMBER, StoreDep, VisibleJob
from api.routing import Route
from core.errors import BadRequest, NotFound, Unauthorized, Unavailable
from core.jobs.state import JobState
from core.jobs.views import EventView, Page
from core.spec.parts.forms import NUMBER, matches
from core.store.schema.access import EVERYTHING, Access
from core.store.schema.tables import Job, Pipeline

router = APIRouter(route_class=Route, prefix="/jobs", tags=["jobs"])

_SECONDS = 0.3
_PAGE = 500
_KEY_SECONDS = 2.0
"""How often the key of an open stream is checked again."""


def last_seen(
    last_event_id: Annotated[
        str,
        Header(
            description="The id of the last event that was received.",
            json_schema_extra={"pattern": "^[0-9]{0,9}$"},  # checked below, and answered with 400
        ),
    ] = "",
    after: Annotated[
        int,
        Query(
            ge=0,
            le=MAX_NUMBER,
            description="The same for a first call: a browser sends the header only when it reconnects.",
        ),
    ] = 0,
) -> int:
    """The number of the last event that the reader has."""
    if not last_event_id:
        return after
    if not matches(NUMBER, last_event_id):
        raise BadRequest(f"Last-Event-ID {last_event_id!r} is not the id of an event of this stream")
    return int(last_event_id)


Told = TypeVar("Told", bound=EventView)


def page_of_events(found: list[Told], cursor: int, owner: Job | Pipeline) -> Page[Told]:
    """The events after ``cursor``; ``next_cursor`` is null only after the last of an owner that has ended."""
    last = found[-1].seq if found else cursor
    more = last < owner.event_seq or not JobState(owner.state).final
    return Page(items=found, next_cursor=str(last) if more else None)


@router.get(
    "/{job_id}/stream",
    response_class=EventSourceResponse,
    summary="Events of a job, live (server-sent events)",
)
async def stream(
    request: Request,
    store: StoreDep,
    job: VisibleJob,
    after: Annotated[int, Depends(last_seen)],
) -> AsyncIterator[ServerSentEvent]:
    """Send all events from the first, or from the one after `Last-Event-ID` (or `after`), until the job has
    ended.

    The id of an event is its number within the job, so a client that reconnects misses and repeats nothing.
    The stream also ends, within seconds, when the caller's key is revoked.
    """
    followed = Followed(
        lambda access: store.jobs.get(job.id, access).state,
        lambda last, limit: store.progress.events(job.id, last, limit),
    )
    async for event in follow(request, followed, after):
        yield event


@dataclass(frozen=True)
class Followed:
    """What a stream is about: a job or a pipeline.

    ``state`` takes the rights of a caller and raises `NotFound` where they do not suffice; ``events`` takes
    the number of the last event that is known, and how many are wanted.
    """

    state: Callable[[Access], str]
    events: Callable[[int, int], Sequence[EventView]]

    def look(self, after: int) -> tuple[bool, Sequence[EventView]]:
        """Whether it has ended, and its next events."""
        # The state is read before the events: what is written in between comes with the next look.
        final = JobState(self.state(EVERYTHING)).final
        return final, self.events(after, _PAGE)


async def follow(request: Request, followed: Followed, after: int) -> AsyncIterator[ServerSentEvent]:
    """Looks a few times a second. Waits while the database is away: the browser need not notice."""
    checked = time.monotonic()
    while not await request.is_disconnected():
        try:
            if time.monotonic() - checked >= _KEY_SECONDS:
                if not await run_in_threadpool(_may_still_read, request, followed):
                    return
                checked = time.monotonic()
            final, events = await run_in_threadpool(followed.look, after)
        except Unavailable:
            await asyncio.sleep(2)
            continue
        except NotFound:
            return
        for event in events:
            after = event.seq
            data = event.model_dump(mode="json")
            yield ServerSentEvent(data=data, event=event.type.value, id=str(after))
        if final and len(events) < _PAGE:
            return
        if not events:
            await asyncio.sleep(_SECONDS)


def _may_still_read(request: Request, followed: Followed) -> bool:
    """Whether the caller's key still allows what it did when the stream began."""
    authenticator: Authenticator = request.app.state.authenticator
    try:
        followed.state(authenticator.recheck(request).access)
    except (Unauthorized, NotFound):
        return False
    return True
