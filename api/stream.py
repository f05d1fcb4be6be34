"""A job's events as they happen (server-sent events)."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.sse import EventSourceResponse, ServerSentEvent

from api.deps import Reader, StoreDep
from api.views import event_view
from core.errors import BadRequest, Unavailable
from core.jobs.state import JobState
from core.store import Store

router = APIRouter(prefix="/jobs", tags=["jobs"])

_SECONDS = 0.3
_PAGE = 500


def known_job(job_id: str, store: StoreDep, _: Reader) -> str:
    """Before the stream begins, while an error can still have a status of its own."""
    return store.jobs.get(job_id).id


def last_seen(last_event_id: Annotated[str | None, Header()] = None) -> int:
    """The number of the last event that the reader has."""
    if not last_event_id:
        return 0
    if not last_event_id.isdecimal() or len(last_event_id) > 9:
        raise BadRequest(f"Last-Event-ID {last_event_id!r} is not a number that this stream gave")
    return int(last_event_id)


@router.get("/{job_id}/stream", response_class=EventSourceResponse, summary="What happens, live")
async def stream(
    request: Request,
    store: StoreDep,
    job_id: Annotated[str, Depends(known_job)],
    after: Annotated[int, Depends(last_seen)],
) -> AsyncIterator[ServerSentEvent]:
    """Every event from the first, or from the one after `Last-Event-ID`; ends when the job has ended.

    An event's id is its number within the job: a reader that was cut off goes on without gaps or repeats.
    """
    async for event in follow(request, store, job_id, after):
        yield event


async def follow(request: Request, store: Store, job_id: str, after: int) -> AsyncIterator[ServerSentEvent]:
    """Looks a few times a second. Waits while the database is away: the browser need not notice."""
    while not await request.is_disconnected():
        try:
            # The state is read before the events: what is written in between comes with the next look.
            final = JobState((await run_in_threadpool(store.jobs.get, job_id)).state).final
            rows = await run_in_threadpool(store.progress.events, job_id, after, _PAGE)
        except Unavailable:
            await asyncio.sleep(2)
            continue
        for row in rows:
            after = row.seq
            view = event_view(row)
            yield ServerSentEvent(data=view.model_dump(mode="json"), event=view.type.value, id=str(view.seq))
        if final and len(rows) < _PAGE:
            return
        if not rows:
            await asyncio.sleep(_SECONDS)
