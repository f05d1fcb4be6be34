"""Jobs: submit, look, stop."""

import hashlib
from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, Body, Header, Query, Response
from fastapi.responses import PlainTextResponse

from api.deps import MAX_NUMBER, Cursor, LibraryDep, Limit, QueueDep, Reader, SettingsDep, StoreDep, Submitter
from api.estimates import check_memory, estimate
from api.references import settle
from api.views import artifact_view, event_view, job_view
from core.errors import BadRequest, InvalidRequest, NotFound, Problem
from core.ids import new_id
from core.jobs.state import JobState
from core.spec import AnyJobSpec, JobSpec, MineSpec, TrainSpec
from core.spec.job import LABEL_KEY
from core.spec.views import ArtifactView, EstimateView, EventView, JobView, MetricPoint, MetricSeries, Page
from core.store import Store
from core.store.series import downsample

router = APIRouter(prefix="/jobs", tags=["jobs"])

_PROBLEM: dict[str, Any] = {"content": {"application/problem+json": {}}}


@router.post(
    "",
    status_code=201,
    summary="Submit a job",
    responses={
        200: {"model": JobView, "description": "The same Idempotency-Key and body: the same job."},
        **{
            status: {"description": text, **_PROBLEM}
            for status, text in {
                403: "A file reference outside ALLOWED_PATHS",
                404: "A dataset, model or job that does not exist",
                409: "The same Idempotency-Key, another body",
            }.items()
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
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=200)] = None,
) -> JobView:
    """Validates the spec and everything that it names, and queues the job.

    Send an `Idempotency-Key` to make repeating the call safe.
    """
    request = hashlib.sha256(spec.model_dump_json().encode()).hexdigest()
    idempotency = (idempotency_key, request) if idempotency_key else None
    # First of all: what has changed in the world since then does not change the answer.
    known = store.jobs.replay(principal.key_id, *idempotency) if idempotency else None
    if known is not None:
        job, new = known, False
    else:
        _check_fleet(spec, store)
        inputs, parents = settle(spec, store, settings)
        own_id, first = None, dict[str, MineSpec]()
        if isinstance(spec, MineSpec) and spec.parts > 1:
            own_id = new_id("job")
            spec, first = spec.divided(own_id, [new_id("job") for _ in range(spec.parts)])
        job, new = store.jobs.submit(
            spec,
            job_id=own_id,
            first=first,
            owner=principal.key_id,
            inputs=inputs,
            depends_on=parents,
            idempotency=idempotency,
            least_gpu_memory=check_memory(spec, inputs, store, library)
            if isinstance(spec, TrainSpec)
            else None,
        )
    if not new:
        response.status_code = 200
    response.headers["Location"] = f"/jobs/{job.id}"
    _wake(background, queue, job.state, job.wants_gpu)
    if job.state == JobState.WAITING and job.spec.get("candidates"):
        _wake(background, queue, JobState.QUEUED, job.wants_gpu)  # for its parts
    return job_view(job, store)


@router.post(
    "/estimate",
    summary="What a job would take",
    responses={
        403: {"description": "A file reference outside ALLOWED_PATHS", **_PROBLEM},
        404: {"description": "A dataset, model or job that does not exist", **_PROBLEM},
    },
)
def estimate_job(
    spec: Annotated[TrainSpec, Body()],
    store: StoreDep,
    settings: SettingsDep,
    library: LibraryDep,
    _: Reader,
) -> EstimateView:
    """Memory by part, steps and seconds, and which workers have room. Nothing is queued."""
    inputs, _parents = settle(spec, store, settings)
    return estimate(spec, inputs, store, library)


def _check_fleet(spec: JobSpec, store: Store) -> None:
    """Refuses what none of the workers could ever run. With no worker up, nobody knows."""
    if spec.resources.gpus == 0:
        return
    alive = [worker for worker, _ in store.workers.alive(60)]
    hosts = [sorted((gpu["memory_bytes"] for gpu in worker.gpus), reverse=True) for worker in alive]
    needed, wanted = spec.resources.gpu_memory_gb, spec.resources.gpus
    most = max((len(worker.gpus) for worker in alive), default=0)
    if alive and wanted != "auto" and wanted > most:
        message = f"resources.gpus is {wanted}, and no host has more than {most}"
        if not most:
            message = f"a GPU is asked for, and none of the {len(alive)} workers has one"
        raise InvalidRequest(message, [Problem("resources.gpus", message)])
    count = 1 if wanted == "auto" else wanted
    largest = max((sizes[count - 1] for sizes in hosts if len(sizes) >= count), default=0)
    if largest and needed != "auto" and needed * 1e9 > largest:
        message = f"{needed:g} GB are asked for, and the largest GPU has {largest / 1e9:.1f} GB"
        if count > 1:
            message = f"{count} GPUs of {needed:g} GB are asked for, and no host has so many"
        raise InvalidRequest(message, [Problem("resources.gpu_memory_gb", message)])


def _wake(background: BackgroundTasks, queue: QueueDep, state: str, wants_gpu: str) -> None:
    """After the commit and after the answer: a slow broker holds nobody up."""
    if state == JobState.QUEUED:
        background.add_task(queue.wake, "gpu" if wants_gpu == "yes" else "cpu")


@router.get("", summary="List jobs, newest first")
def list_jobs(
    store: StoreDep,
    _: Reader,
    state: JobState | None = None,
    kind: Annotated[str | None, Query(max_length=32)] = None,
    label: Annotated[list[str] | None, Query(description="k:v, repeatable")] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[JobView]:
    labels = {}
    for item in label or []:
        key, colon, value = item.partition(":")
        if not colon or not LABEL_KEY.match(key):
            raise BadRequest(f"label={item}: the form is key:value")
        labels[key] = value
    jobs, following = store.jobs.page(state=state, kind=kind, labels=labels, cursor=cursor, limit=limit)
    return Page(items=[job_view(job) for job in jobs], next_cursor=following)


@router.get("/{job_id}", summary="A job")
def get_job(job_id: str, store: StoreDep, _: Reader) -> JobView:
    return job_view(store.jobs.get(job_id), store)


@router.post("/{job_id}/cancel", status_code=202, summary="Cancel")
def cancel(job_id: str, store: StoreDep, _: Submitter) -> JobView:
    """Ends it, and the parts that it was divided into. A running job saves a checkpoint first, so that a
    retry goes on from there."""
    return job_view(store.jobs.cancel(job_id), store)


@router.post("/{job_id}/pause", status_code=202, summary="Pause")
def pause(job_id: str, store: StoreDep, _: Submitter) -> JobView:
    """Saves a checkpoint and stops, or holds a queued job back."""
    return job_view(store.jobs.pause(job_id), store)


@router.post("/{job_id}/resume", status_code=202, summary="Resume a paused job")
def resume(
    job_id: str, store: StoreDep, background: BackgroundTasks, queue: QueueDep, _: Submitter
) -> JobView:
    job = store.jobs.resume(job_id)
    _wake(background, queue, job.state, job.wants_gpu)
    return job_view(job, store)


@router.post("/{job_id}/retry", status_code=202, summary="Retry a failed or cancelled job")
def retry(
    job_id: str, store: StoreDep, background: BackgroundTasks, queue: QueueDep, _: Submitter
) -> JobView:
    """From its last checkpoint, if it has one."""
    job = store.jobs.retry(job_id)
    _wake(background, queue, job.state, job.wants_gpu)
    return job_view(job, store)


@router.get("/{job_id}/events", summary="What has happened")
def events(
    job_id: str,
    store: StoreDep,
    _: Reader,
    cursor: Annotated[int, Query(ge=0, le=MAX_NUMBER, description="The seq of the last event known.")] = 0,
    limit: Limit = 200,
) -> Page[EventView]:
    """Oldest first. `next_cursor` is null only when the job has ended and all was given."""
    job = store.jobs.get(job_id)
    rows = store.progress.events(job_id, after=cursor, limit=limit)
    last = rows[-1].seq if rows else cursor
    more = last < job.event_seq or not JobState(job.state).final
    return Page(items=[event_view(row) for row in rows], next_cursor=str(last) if more else None)


@router.get("/{job_id}/metrics", summary="Curves")
def metrics(
    job_id: str,
    store: StoreDep,
    _: Reader,
    name: Annotated[list[str] | None, Query(description="Repeatable; all without it.")] = None,
    max_points: Annotated[int, Query(ge=2, le=100_000)] = 1000,
) -> Page[MetricSeries]:
    """Every series by step, thinned to `max_points` so that extremes stay."""
    store.jobs.get(job_id)
    known = store.progress.metric_names(job_id)
    if unknown := set(name or []) - set(known):
        raise NotFound(
            f"Job {job_id} has no metric {', '.join(sorted(unknown))}; it has {', '.join(known) or 'none'}"
        )
    series = []
    for metric in name or known:
        points = store.progress.metric(job_id, metric)
        chosen = [
            MetricPoint(step=step, value=value, at=at) for step, value, at in downsample(points, max_points)
        ]
        series.append(MetricSeries(name=metric, points=chosen, total_points=len(points)))
    return Page(items=series)


@router.get("/{job_id}/logs", summary="The log", response_class=PlainTextResponse)
def logs(
    job_id: str,
    store: StoreDep,
    _: Reader,
    tail: Annotated[int | None, Query(ge=1, le=1_000_000, description="The last so many lines.")] = None,
    after: Annotated[int, Query(ge=0, le=MAX_NUMBER, description="The X-Log-Cursor of the call before.")] = 0,
) -> PlainTextResponse:
    """What the job's process wrote to its output, all attempts after each other."""
    store.jobs.get(job_id)
    chunks = store.progress.log(job_id, after=after)
    text = "".join(chunk.content for chunk in chunks)
    if tail is not None:
        text = "".join(text.splitlines(keepends=True)[-tail:])
    return PlainTextResponse(text, headers={"X-Log-Cursor": str(chunks[-1].seq if chunks else after)})


@router.get("/{job_id}/artifacts", summary="Outputs")
def artifacts(job_id: str, store: StoreDep, _: Reader) -> Page[ArtifactView]:
    store.jobs.get(job_id)
    return Page(items=[artifact_view(artifact) for artifact in store.artifacts.of_job(job_id)])
