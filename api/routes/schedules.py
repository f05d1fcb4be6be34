"""Schedules: pipelines that are submitted again and again."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, BackgroundTasks, Path, Response

from api.deps import LibraryDep, QueueDep, Reader, SettingsDep, StoreDep, Submitter
from api.routing import Route
from api.scheduler import Scheduler
from api.submission import wake_for
from api.views import schedule_view
from core.errors import Conflict
from core.jobs.views import Page, ScheduleView
from core.spec.parts.forms import ScheduleId

router = APIRouter(route_class=Route, prefix="/schedules", tags=["pipelines"])

PathSchedule = Annotated[ScheduleId, Path()]


@router.get("", summary="The caller's schedules")
def schedules(store: StoreDep, reader: Reader) -> Page[ScheduleView]:
    """Oldest first. An administrator sees all. A schedule is made by POST /pipelines with `schedule`."""
    return Page(items=[schedule_view(one) for one in store.schedules.all(reader.access)])


@router.get("/{schedule_id}", summary="A schedule")
def get_schedule(schedule_id: PathSchedule, store: StoreDep, reader: Reader) -> ScheduleView:
    return schedule_view(store.schedules.get(schedule_id, reader.access))


@router.post(
    "/{schedule_id}/run",
    status_code=202,
    summary="Submit the pipeline of a schedule now",
    responses={409: {"description": "Its last pipeline has not ended, or it cannot be submitted now."}},
)
def run(
    schedule_id: PathSchedule,
    background: BackgroundTasks,
    store: StoreDep,
    settings: SettingsDep,
    library: LibraryDep,
    queue: QueueDep,
    principal: Submitter,
) -> ScheduleView:
    """The times of the schedule stay as they are."""
    schedule = store.schedules.get(schedule_id, principal.access)
    scheduler = Scheduler(settings, store, library, partial(wake_for, background, queue))
    outcome = scheduler.run(schedule)
    if outcome.problem is not None:
        raise Conflict(outcome.problem)
    return schedule_view(store.schedules.get(schedule_id, principal.access))


@router.delete("/{schedule_id}", status_code=204, summary="Delete a schedule")
def delete(schedule_id: PathSchedule, store: StoreDep, principal: Submitter) -> Response:
    """Pipelines that it has submitted stay."""
    store.schedules.remove(schedule_id, principal.access)
    return Response(status_code=204)
