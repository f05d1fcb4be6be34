"""Pipelines: submit, look, stop."""

from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, Body, Depends, Header, Path, Query, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from api.deps import (
    MAX_NUMBER,
    LibraryDep,
    Limit,
    PipelineCursor,
    QueueDep,
    Reader,
    SettingsDep,
    StoreDep,
    Submitter,
    VisiblePipeline,
)
from api.pipeline_submission import PostedPipeline, add_schedule, submit_pipeline
from api.routes.jobs import LabelFilter, labels_of
from api.routing import Route
from api.stream import Followed, follow, last_seen, page_of_events
from api.submission import Checker, wake_for
from api.views import pipeline_view, schedule_view
from core.jobs.state import JobState
from core.jobs.views import Page, PipelineEventView, PipelineView, ScheduleView
from core.spec.parts.forms import PLAIN, PipelineId
from core.spec.pipelines.plan import PipelineSpec
from core.store import Store
from core.store.schema.tables import Job, Pipeline

router = APIRouter(route_class=Route, prefix="/pipelines", tags=["pipelines"])

PathPipeline = Annotated[PipelineId, Path()]


@router.post(
    "",
    status_code=201,
    summary="Submit a pipeline",
    responses={
        200: {
            "model": PipelineView | ScheduleView,
            "description": "Repeated call with the same Idempotency-Key and body: the existing pipeline. Or "
            "an equal schedule exists: that schedule.",
        },
        403: {
            "description": "The key does not have the scope submit, or a file is outside "
            "REASON_ALLOWED_PATHS."
        },
        404: {"description": "A file, dataset, model or job that a stage names does not exist."},
        409: {
            "description": "The same Idempotency-Key with another body; or a job that a stage names has "
            "ended without the output, or did not succeed."
        },
    },
)
def submit(
    spec: Annotated[PostedPipeline, Body()],
    response: Response,
    background: BackgroundTasks,
    store: StoreDep,
    settings: SettingsDep,
    library: LibraryDep,
    queue: QueueDep,
    principal: Submitter,
    idempotency_key: Annotated[str | None, Header(pattern=PLAIN, min_length=1, max_length=200)] = None,
) -> PipelineView | ScheduleView:
    """Validate all stages, and add their jobs together: all of them or none.

    A stage names an output of another as `stage:NAME/OUTPUT`, and starts when that stage has succeeded. When
    a stage fails, the stages that need it are cancelled. With an `Idempotency-Key` the call can be repeated
    safely: it creates at most one pipeline.

    With `recipe` and `inputs` instead of `stages` the recipe makes the stages: see POST
    /recipes/{name}/expand. The flat form of earlier training scripts (`dataset_name`, `model_name`, ...)
    becomes a pipeline of split, baseline, mining, training and comparison.

    With `schedule` the answer is a schedule, which submits the pipeline again and again (GET /schedules).
    Equal schedules are one.
    """
    checker = Checker(store, settings, library, principal.access)
    if isinstance(spec, PipelineSpec) and spec.schedule is not None:
        schedule, new = add_schedule(spec, spec.schedule, checker)
        response.headers["Location"] = f"/schedules/{schedule.id}"
        response.status_code = 201 if new else 200
        return schedule_view(schedule)
    pipeline, new = submit_pipeline(spec, checker, idempotency_key)
    if not new:
        response.status_code = 200
    response.headers["Location"] = f"/pipelines/{pipeline.id}"
    return view_of(pipeline, store, partial(wake_for, background, queue))


def view_of(
    pipeline: Pipeline, store: Store, wake: Callable[[Job], None] = lambda _job: None
) -> PipelineView:
    """``wake`` is called with each of its jobs."""
    jobs = store.pipelines.jobs_of([pipeline.id])[pipeline.id]
    for job in jobs.values():
        wake(job)
    needs, verdicts = store.pipelines.needs_of(pipeline.id), store.pipelines.verdicts_of(jobs)
    final = JobState(pipeline.state).final
    return pipeline_view(
        pipeline, jobs, needs, verdicts, None if final else store.line.time_left(jobs, needs)
    )


@router.get("", summary="List pipelines, newest first")
def list_pipelines(
    store: StoreDep,
    reader: Reader,
    state: JobState | None = None,
    label: LabelFilter = None,
    cursor: PipelineCursor = None,
    limit: Limit = 50,
) -> Page[PipelineView]:
    found, following = store.pipelines.page(
        state=state, labels=labels_of(label), access=reader.access, cursor=cursor, limit=limit
    )
    jobs = store.pipelines.jobs_of([pipeline.id for pipeline in found])
    items = [pipeline_view(pipeline, jobs[pipeline.id]) for pipeline in found]
    return Page(items=items, next_cursor=following)


@router.get("/{pipeline_id}", summary="A pipeline")
def get_pipeline(pipeline: VisiblePipeline, store: StoreDep) -> PipelineView:
    return view_of(pipeline, store)


_ACTION: dict[int | str, dict[str, Any]] = {
    403: {"description": "The pipeline belongs to another key, and this key does not have the scope admin."},
    409: {"description": "The pipeline's state does not allow this call."},
}


@router.delete(
    "/{pipeline_id}",
    status_code=204,
    summary="Delete an ended pipeline with its jobs and their outputs",
    responses={
        403: _ACTION[403],
        409: {"description": "The pipeline has not ended, or one of its outputs is needed or pinned."},
    },
)
def delete(pipeline_id: PathPipeline, store: StoreDep, principal: Submitter) -> Response:
    """All of it or nothing. Files are removed within minutes."""
    store.retention.delete_pipeline(pipeline_id, principal.access)
    return Response(status_code=204)


@router.post("/{pipeline_id}/cancel", status_code=202, summary="Cancel a pipeline", responses=_ACTION)
def cancel(pipeline_id: PathPipeline, store: StoreDep, principal: Submitter) -> PipelineView:
    """Cancel all stages that have not ended. Running jobs first save a checkpoint."""
    return view_of(store.pipelines.cancel(pipeline_id, principal.access), store)


@router.post("/{pipeline_id}/retry", status_code=202, summary="Retry a pipeline", responses=_ACTION)
def retry(
    pipeline_id: PathPipeline,
    store: StoreDep,
    background: BackgroundTasks,
    queue: QueueDep,
    principal: Submitter,
) -> PipelineView:
    """Queue the failed and cancelled stages again. Stages that have succeeded are not run again."""
    pipeline = store.pipelines.retry(pipeline_id, principal.access)
    return view_of(pipeline, store, partial(wake_for, background, queue))


@router.get("/{pipeline_id}/events", summary="Events of a pipeline")
def events(
    pipeline: VisiblePipeline,
    store: StoreDep,
    cursor: Annotated[
        int, Query(ge=0, le=MAX_NUMBER, description="The seq of the last event that was received.")
    ] = 0,
    limit: Limit = 200,
) -> Page[PipelineEventView]:
    """The events of all stages, oldest first. `next_cursor` is null only after the last event of a pipeline
    that has ended."""
    found = store.pipelines.events(pipeline.id, after=cursor, limit=limit)
    return page_of_events(found, cursor, pipeline)


@router.get(
    "/{pipeline_id}/stream",
    response_class=EventSourceResponse,
    summary="Events of a pipeline, live (server-sent events)",
)
async def stream(
    request: Request,
    store: StoreDep,
    pipeline: VisiblePipeline,
    after: Annotated[int, Depends(last_seen)],
) -> AsyncIterator[ServerSentEvent]:
    """Send the events of all stages, from the first or from the one after `Last-Event-ID`, until the pipeline
    has ended. The id of an event is its number within the pipeline.
    """
    followed = Followed(
        lambda access: store.pipelines.get(pipeline.id, access).state,
        lambda last, limit: store.pipelines.events(pipeline.id, last, limit),
    )
    async for event in follow(request, followed, after):
        yield event
