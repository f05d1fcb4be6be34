"""Jobs: submit, look, stop."""

import hashlib
from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, Body, Header, Path, Query, Response
from fastapi.responses import PlainTextResponse
from pydantic import Field

from api.deps import (
    MAX_NUMBER,
    JobCursor,
    LibraryDep,
    Limit,
    PlainText,
    QueueDep,
    Reader,
    SettingsDep,
    StoreDep,
    Submitter,
    VisibleJob,
)
from api.estimates import estimate_training
from api.reading_estimates import estimate_reading
from api.references import pin_checkpoints, resolve_references
from api.routing import Route
from api.series import downsample
from api.stream import page_of_events
from api.submission import Checker, wake_for
from api.views import artifact_views, checkpoint_views, job_view
from api.why import explain
from core.errors import BadRequest, NotFound, Problem
from core.jobs.state import JobState
from core.jobs.views import (
    ArtifactView,
    CheckpointView,
    EstimateView,
    EventView,
    JobView,
    MetricPoint,
    MetricSeries,
    Page,
    WhyView,
)
from core.spec import AnyJobSpec, TrainSpec
from core.spec.job import JobChanges
from core.spec.parts.forms import LABEL, PLAIN, JobId, PipelineId, matches

router = APIRouter(route_class=Route, prefix="/jobs", tags=["jobs"])

_REFERENCES: dict[int | str, dict[str, Any]] = {
    403: {
        "description": "The key does not have the scope submit, or a file is outside REASON_ALLOWED_PATHS."
    },
    404: {"description": "A file, dataset, model or job that the spec names does not exist."},
    409: {"description": "A job that the spec names has ended without the output, or did not succeed."},
}
_ACTION: dict[int | str, dict[str, Any]] = {
    403: {"description": "The job belongs to another key, and this key does not have the scope admin."},
    409: {"description": "The job's state does not allow this call."},
}


@router.post(
    "",
    status_code=201,
    summary="Submit a job",
    responses={
        200: {
            "model": JobView,
            "description": "Repeated call with the same Idempotency-Key and body: the existing job.",
        },
        **_REFERENCES,
        409: {
            "description": "The same Idempotency-Key with another body; or a job that the spec names has "
            "ended without the output, or did not succeed."
        },
    },
)
def submit(
    spec: Annotated[AnyJobSpec, Body()],
    response: Response,
    background: BackgroundTasks,
    store: StoreDep,
    settings: SettingsDep,
    library: LibraryDep,
    queue: QueueDep,
    principal: Submitter,
    idempotency_key: Annotated[str | None, Header(pattern=PLAIN, min_length=1, max_length=200)] = None,
) -> JobView:
    """Validate the spec and its references, and queue the job.

    With an `Idempotency-Key` the call can be repeated safely: it creates at most one job.
    """
    # Without defaults: a field that a later version adds changes no request of before.
    request = hashlib.sha256(spec.model_dump_json(exclude_defaults=True).encode()).hexdigest()
    idempotency = (idempotency_key, request) if idempotency_key else None
    # First of all: what has changed in the world since then does not change the answer.
    known = store.jobs.replay(principal.key_id, *idempotency) if idempotency else None
    if known is not None:
        job, new = known, False
    else:
        checker = Checker(store, settings, library, principal.access)
        *parts, job_to_add = checker.check(spec)
        job, new = store.jobs.submit(
            job_to_add, parts=parts, access=principal.access, idempotency=idempotency
        )
    if not new:
        response.status_code = 200
    response.headers["Location"] = f"/jobs/{job.id}"
    wake_for(background, queue, job)
    return job_view(job, store)


@router.post(
    "/estimate",
    summary="Estimate a job",
    responses=_REFERENCES,
)
def estimate_job(
    spec: Annotated[AnyJobSpec, Body()],
    store: StoreDep,
    settings: SettingsDep,
    library: LibraryDep,
    reader: Reader,
) -> EstimateView:
    """Estimate memory, steps and seconds, and the workers that are large enough. Nothing is queued."""
    spec = pin_checkpoints(spec, store, reader.access, {})
    inputs, _parents = resolve_references(spec, store, settings, reader.access)
    if isinstance(spec, TrainSpec):
        return estimate_training(spec, inputs, store, library)
    return estimate_reading(spec, inputs, store, library)


LabelFilter = Annotated[
    # Checked by `labels_of`, and answered with 400.
    list[Annotated[str, Field(json_schema_extra={"pattern": LABEL})]] | None,
    Query(description="key:value. Repeat it to require several labels."),
]


@router.get(
    "",
    summary="List jobs, newest first",
    responses={
        400: {
            "description": "An unknown parameter, a label without the form key:value, or an invalid cursor."
        }
    },
)
def list_jobs(
    store: StoreDep,
    reader: Reader,
    state: JobState | None = None,
    kind: Annotated[str | None, Query(pattern=PLAIN, max_length=32)] = None,
    label: LabelFilter = None,
    pipeline: Annotated[PipelineId | None, Query(description="Only the jobs of this pipeline.")] = None,
    search: Annotated[PlainText | None, Query(description="A part of the name or of the id.")] = None,
    cursor: JobCursor = None,
    limit: Limit = 50,
) -> Page[JobView]:
    jobs, following = store.jobs.page(
        state=state,
        kind=kind,
        labels=labels_of(label),
        pipeline=pipeline,
        search=search,
        access=reader.access,
        cursor=cursor,
        limit=limit,
    )
    return Page(items=[job_view(job) for job in jobs], next_cursor=following)


def labels_of(given: list[str] | None) -> dict[str, str]:
    """Labels as a filter. Raises `BadRequest` for what has not the form key:value."""
    for item in given or []:
        if not matches(LABEL, item):
            raise BadRequest(
                f"label={item}: must have the form key:value",
                [Problem("label", "must have the form key:value")],
            )
    return dict(item.split(":", 1) for item in given or [])


@router.get("/{job_id}", summary="A job")
def get_job(job: VisibleJob, store: StoreDep) -> JobView:
    return job_view(job, store)


@router.get("/{job_id}/why", summary="Why a job is not running")
def why(job: VisibleJob, store: StoreDep) -> WhyView:
    """The reasons why the job does not run now, each with a code and a sentence; its position in the queue,
    and when it may start. Empty for a running job."""
    return explain(job, store)


PathJob = Annotated[JobId, Path()]


@router.patch(
    "/{job_id}",
    summary="Change the name, labels or priority of a job",
    responses={403: _ACTION[403]},
)
def change(
    job_id: PathJob, changes: Annotated[JobChanges, Body()], store: StoreDep, principal: Submitter
) -> JobView:
    """A higher priority moves a queued job forward. A running attempt is not interrupted."""
    return job_view(store.jobs.change(job_id, changes, principal.access), store)


@router.delete(
    "/{job_id}",
    status_code=204,
    summary="Delete an ended job and its outputs",
    responses={
        403: _ACTION[403],
        409: {
            "description": "The job has not ended, belongs to a pipeline, or one of its outputs is needed: "
            "by a job that has not ended, by embeddings that were made with it, or because it is pinned."
        },
    },
)
def delete(job_id: PathJob, store: StoreDep, principal: Submitter) -> Response:
    """Its events, metrics, log and outputs are gone. Files are removed within minutes, unless an equal output
    of another job has the same ones."""
    store.retention.delete_job(job_id, principal.access)
    return Response(status_code=204)


@router.post("/{job_id}/cancel", status_code=202, summary="Cancel a job", responses=_ACTION)
def cancel(job_id: PathJob, store: StoreDep, principal: Submitter) -> JobView:
    """End the job, and the jobs of its parts. A running job first saves a checkpoint, from which a retry
    continues."""
    return job_view(store.jobs.cancel(job_id, principal.access), store)


@router.post("/{job_id}/pause", status_code=202, summary="Pause a job", responses=_ACTION)
def pause(job_id: PathJob, store: StoreDep, principal: Submitter) -> JobView:
    """A running job saves a checkpoint and stops. A queued job is not started until it is resumed."""
    return job_view(store.jobs.pause(job_id, principal.access), store)


@router.post("/{job_id}/resume", status_code=202, summary="Resume a paused job", responses=_ACTION)
def resume(
    job_id: PathJob, store: StoreDep, background: BackgroundTasks, queue: QueueDep, principal: Submitter
) -> JobView:
    job = store.jobs.resume(job_id, principal.access)
    wake_for(background, queue, job)
    return job_view(job, store)


@router.post("/{job_id}/retry", status_code=202, summary="Retry a failed or cancelled job", responses=_ACTION)
def retry(
    job_id: PathJob, store: StoreDep, background: BackgroundTasks, queue: QueueDep, principal: Submitter
) -> JobView:
    """The job continues from its last checkpoint, if it has one."""
    job = store.jobs.retry(job_id, principal.access)
    wake_for(background, queue, job)
    return job_view(job, store)


@router.get("/{job_id}/events", summary="Events of a job")
def events(
    job: VisibleJob,
    store: StoreDep,
    cursor: Annotated[
        int, Query(ge=0, le=MAX_NUMBER, description="The seq of the last event that was received.")
    ] = 0,
    limit: Limit = 200,
) -> Page[EventView]:
    """Oldest first. `next_cursor` is null only after the last event of a job that has ended."""
    found = store.progress.events(job.id, after=cursor, limit=limit)
    return page_of_events(found, cursor, job)


@router.get("/{job_id}/metrics", summary="Metrics of a job")
def metrics(
    job: VisibleJob,
    store: StoreDep,
    name: Annotated[
        list[PlainText] | None, Query(description="Name of a metric. Repeat it for several; default: all.")
    ] = None,
    max_points: Annotated[int, Query(ge=2, le=100_000)] = 1000,
) -> Page[MetricSeries]:
    """Each metric by step, reduced to `max_points` points; minima and maxima are kept."""
    known = store.progress.metric_names(job.id)
    if unknown := set(name or []) - set(known):
        raise NotFound(
            f"Job {job.id} has no metric {', '.join(sorted(unknown))}; it has {', '.join(known) or 'none'}"
        )
    series = []
    for metric in name or known:
        points = store.progress.metric(job.id, metric)
        chosen = [
            MetricPoint(step=step, value=value, at=at) for step, value, at in downsample(points, max_points)
        ]
        series.append(MetricSeries(name=metric, points=chosen, total_points=len(points)))
    return Page(items=series)


@router.get("/{job_id}/logs", summary="Log of a job", response_class=PlainTextResponse)
def logs(
    job: VisibleJob,
    store: StoreDep,
    tail: Annotated[
        int | None, Query(ge=1, le=1_000_000, description="Only this many of the last lines.")
    ] = None,
    after: Annotated[
        int, Query(ge=0, le=MAX_NUMBER, description="The X-Log-Cursor of the previous call.")
    ] = 0,
) -> PlainTextResponse:
    """The output of the job's process, of all attempts in order."""
    chunks = store.progress.log(job.id, after=after)
    text = "".join(chunk.content for chunk in chunks)
    if tail is not None:
        text = "".join(text.splitlines(keepends=True)[-tail:])
    return PlainTextResponse(text, headers={"X-Log-Cursor": str(chunks[-1].seq if chunks else after)})


@router.get("/{job_id}/checkpoints", summary="Checkpoints of a training that can be used as models")
def checkpoints(job: VisibleJob, store: StoreDep) -> Page[CheckpointView]:
    """The newest ones (`checkpoint.keep`), the best one, and those that are pinned or in use; by step.

    `job:ID/checkpoint@STEP`, `@best` or `@last` stands wherever a spec names a model, also while the job runs
    and after it has failed.
    """
    return Page(items=checkpoint_views(job.id, store.artifacts.checkpoints(job)))


@router.get("/{job_id}/artifacts", summary="Outputs of a job")
def artifacts(job: VisibleJob, store: StoreDep) -> Page[ArtifactView]:
    return Page(items=artifact_views(store.artifacts.of_job(job.id), store))
