"""Workers, the queue and API keys."""

from typing import Annotated

from fastapi import APIRouter, Path

from api.deps import Admin, Reader, StoreDep
from api.routing import Route
from api.views import key_view, waiting_view, worker_view
from core.jobs.state import JobState
from core.jobs.views import KeyView, NewKeyView, Page, QueueView, WorkerView
from core.spec.parts.forms import KeyId
from core.spec.requests import NewKey

router = APIRouter(route_class=Route)


@router.get("/workers", tags=["fleet"], summary="Workers with a heartbeat in the last minute")
def workers(store: StoreDep, _: Reader) -> Page[WorkerView]:
    return Page(items=[worker_view(worker, running) for worker, running in store.workers.alive(60)])


@router.get(
    "/queue", tags=["fleet"], summary="Number of jobs by state; queued jobs with their expected start"
)
def queue(store: StoreDep, reader: Reader) -> QueueView:
    """The counts include all jobs. The list has the caller's own jobs among the first 1,000 queued jobs."""
    depth = store.jobs.depth()
    jobs = [waiting_view(waiting) for waiting in store.line.look(reader.access)]
    return QueueView(**{state.value: depth.get(state.value, 0) for state in JobState}, jobs=jobs)


@router.post("/keys", status_code=201, tags=["keys"], summary="Create a key; it is shown only once")
def create_key(asked: NewKey, store: StoreDep, _: Admin) -> NewKeyView:
    row, secret = store.keys.create(asked.name, list(asked.scopes))
    return NewKeyView(**key_view(row).model_dump(), key=secret)


@router.get("/keys", tags=["keys"], summary="All keys, without their secrets")
def keys(store: StoreDep, _: Admin) -> Page[KeyView]:
    return Page(items=[key_view(row) for row in store.keys.all()])


@router.delete("/keys/{key_id}", tags=["keys"], summary="Revoke a key")
def revoke_key(key_id: Annotated[KeyId, Path()], store: StoreDep, _: Admin) -> KeyView:
    return key_view(store.keys.revoke(key_id))
