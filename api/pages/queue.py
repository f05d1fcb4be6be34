"""What waits, and who could run it."""

from fastapi import APIRouter, Request, Response

from api.deps import Reader, StoreDep
from api.pages.rendering import render
from api.pages.routing import PageRoute
from api.views import waiting_view, worker_view
from core.jobs.state import JobState

router = APIRouter(route_class=PageRoute, include_in_schema=False)

_ALIVE_SECONDS = 60
_SHOWN = 100


@router.get("/ui/queue")
def queue(request: Request, store: StoreDep, reader: Reader) -> Response:
    depth = store.jobs.depth()
    alive = store.workers.alive(_ALIVE_SECONDS)
    return render(
        request,
        "queue.html.j2",
        depth={state.value: depth.get(state.value, 0) for state in JobState},
        workers=[worker_view(worker, running) for worker, running in alive],
        waiting=[waiting_view(waiting) for waiting in store.line.look(reader.access)[:_SHOWN]],
    )
