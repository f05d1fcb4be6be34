"""What waits, and who could run it."""

from fastapi import APIRouter, Request, Response

from api.deps import Reader, StoreDep
from api.pages.rendering import render
from api.pages.routing import PageRoute
from api.routes import fleet
from core.jobs.state import JobState

router = APIRouter(route_class=PageRoute, include_in_schema=False)

_SHOWN = 100


@router.get("/ui/queue")
def queue(request: Request, store: StoreDep, reader: Reader) -> Response:
    found = fleet.queue(store, reader)
    return render(
        request,
        "queue.html.j2",
        depth={state.value: getattr(found, state) for state in JobState},
        workers=fleet.workers(store, reader).items,
        waiting=found.jobs[:_SHOWN],
    )
