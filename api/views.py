"""Rows as the wire shows them."""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from core.jobs.state import JobState
from core.jobs.views import (
    ArtifactView,
    CheckpointView,
    DeliveryView,
    EndReasonView,
    JobView,
    KeyView,
    PipelineProgress,
    PipelineView,
    ScheduleView,
    StageView,
    VerdictView,
    WaitingView,
    WebhookView,
    WorkerView,
)
from core.spec.pipelines.recipe_facts import RecipeChoice
from core.store import Store
from core.store.artifacts import Checkpoint
from core.store.pipelines.pipelines import end_reason_of
from core.store.schema.tables import ApiKey, Artifact, Delivery, Job, Pipeline, Schedule, Webhook, Worker
from core.store.waiting_line import Waiting


def job_view(job: Job, store: Store | None = None) -> JobView:
    """``store`` is asked for the queue position; without it there is none."""
    return JobView(
        id=job.id,
        kind=job.kind,
        name=job.name,
        labels=job.labels,
        state=job.state,
        phase=job.phase,
        progress=job.progress,
        latest=job.latest,
        memory=job.memory,
        attempt=job.attempt,
        max_attempts=job.max_attempts,
        cancel_requested=job.cancel_requested,
        pause_requested=job.pause_requested,
        queue_position=store.jobs.queue_position(job) if store else None,
        priority=job.priority,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        end_reason=_end_reason(job.end_code, job.end_message),
        spec=job.spec,
        inputs=job.inputs,
        outputs=job.outputs,
        worker=job.worker,
        pipeline=job.pipeline_id,
        stage=job.stage,
        reused_from=job.reused_from,
        origin=job.origin,
        links={
            name: f"/jobs/{job.id}{tail}"
            for name, tail in {
                "self": "",
                "events": "/events",
                "stream": "/stream",
                "metrics": "/metrics",
                "logs": "/logs",
                "artifacts": "/artifacts",
            }.items()
        },
    )


_LISTED_SPLITS = 100


def artifact_views(
    artifacts: Sequence[Artifact], store: Store, *, listed: bool = False
) -> list[ArtifactView]:
    """``listed``: without what grows with the number of files and splits."""
    current = store.artifacts.current(artifacts)
    return [artifact_view(one, current=one.id in current, listed=listed) for one in artifacts]


def known_artifact_view(artifact: Artifact, store: Store) -> ArtifactView:
    """Of an artifact that was there before the call."""
    return artifact_views([artifact], store)[0]


def artifact_view(artifact: Artifact, *, current: bool = False, listed: bool = False) -> ArtifactView:
    """``current``: whether it is the current version of its name. ``listed`` as above."""
    files = artifact.manifest.get("files", [])
    metadata = artifact.manifest.get("metadata", {})
    if listed and len(splits := metadata.get("splits", {})) > _LISTED_SPLITS:
        metadata = {**metadata, "splits": dict(islice(splits.items(), _LISTED_SPLITS))}
    return ArtifactView(
        id=artifact.id,
        job_id=artifact.job_id,
        output=artifact.output,
        kind=artifact.kind,
        name=artifact.name,
        version=artifact.version,
        sha256=artifact.sha256,
        bytes=artifact.bytes,
        created_at=artifact.created_at,
        pinned_at=artifact.pinned_at,
        current=current,
        files=[] if listed else files,
        file_count=len(files),
        metadata=metadata,
        links={"self": f"/artifacts/{artifact.id}", "files": f"/artifacts/{artifact.id}/files/"},
    )


def pipeline_view(
    pipeline: Pipeline,
    jobs: Mapping[str, Job],
    needs: Mapping[str, list[str]] | None = None,
    verdicts: Sequence[Mapping[str, Any]] = (),
    eta_seconds: float | None = None,
) -> PipelineView:
    """``jobs`` and ``needs`` by stage; in lists there are no ``needs`` and ``verdicts``."""
    recipe = pipeline.recipe or {}
    stages, outputs, done = {}, dict[str, str](), 0.0
    for name in pipeline.stages:
        job = jobs[name]
        succeeded = job.state == JobState.SUCCEEDED
        done += 1.0 if succeeded else job.progress.fraction or 0.0
        outputs |= {f"{name}/{output}": reference for output, reference in job.outputs.items()}
        stages[name] = StageView(
            job=job.id,
            kind=job.kind,
            state=JobState(job.state),
            phase=job.phase,
            progress=job.progress,
            needs=(needs or {}).get(name, []),
            reused_from=job.reused_from,
            end_reason=_end_reason(job.end_code, job.end_message),
        )
    reason = end_reason_of(jobs) if JobState(pipeline.state).final else None
    return PipelineView(
        id=pipeline.id,
        name=pipeline.name,
        labels=pipeline.labels,
        state=JobState(pipeline.state),
        stages=stages,
        progress=PipelineProgress(
            succeeded=sum(job.state == JobState.SUCCEEDED for job in jobs.values()),
            stages=len(stages),
            fraction=round(done / len(stages), 4),
            eta_seconds=eta_seconds,
        ),
        outputs=outputs,
        verdicts=[VerdictView.model_validate(verdict) for verdict in verdicts],
        recipe=recipe.get("name"),
        choices=[RecipeChoice.model_validate(choice) for choice in recipe.get("choices", [])],
        created_at=pipeline.created_at,
        finished_at=pipeline.finished_at,
        end_reason=_end_reason(*reason) if reason else None,
        links={
            name: f"/pipelines/{pipeline.id}{tail}"
            for name, tail in {"self": "", "events": "/events", "stream": "/stream"}.items()
        },
    )


def checkpoint_views(job_id: str, found: Sequence[Checkpoint]) -> list[CheckpointView]:
    """``found``: the checkpoints of a job, by step."""
    return [
        CheckpointView(
            step=one.step,
            reference=f"job:{job_id}/checkpoint@{one.step}",
            metrics=one.metrics,
            best=one.best,
            last=one is found[-1],
            artifact=one.artifact.id,
            bytes=one.artifact.bytes,
            created_at=one.artifact.created_at,
        )
        for one in found
    ]


def _end_reason(code: str | None, message: str | None) -> EndReasonView | None:
    return EndReasonView(code=code, message=message or "") if code else None


def waiting_view(waiting: Waiting) -> WaitingView:
    job = waiting.job
    return WaitingView(
        id=job.id,
        kind=job.kind,
        name=job.name,
        priority=job.priority,
        position=waiting.position,
        starts_in_seconds=waiting.starts_in_seconds,
    )


def worker_view(worker: Worker, running: int) -> WorkerView:
    return WorkerView(
        id=worker.id,
        host=worker.host,
        slots=worker.slots,
        running=running,
        gpus=worker.gpus,
        memory_bytes=worker.memory_bytes,
        state="stopping" if worker.stopping else "busy" if running >= worker.slots else "free",
        started_at=worker.started_at,
        heartbeat_at=worker.heartbeat_at,
    )


def webhook_view(hook: Webhook) -> WebhookView:
    return WebhookView(
        id=hook.id,
        url=hook.url,
        events=hook.events,
        created_at=hook.created_at,
        failing_since=hook.failing_since,
        disabled_at=hook.disabled_at,
        disabled_reason=hook.disabled_reason,
        links={"self": f"/webhooks/{hook.id}", "deliveries": f"/webhooks/{hook.id}/deliveries"},
    )


def delivery_view(row: Delivery) -> DeliveryView:
    return DeliveryView(
        id=row.id,
        type=row.type,
        subject=row.subject,
        state=row.state,
        attempts=row.attempts,
        status=row.status,
        error=row.error,
        next_attempt_at=row.not_before if row.state == "waiting" else None,
        created_at=row.created_at,
        ended_at=row.ended_at,
    )


def schedule_view(schedule: Schedule) -> ScheduleView:
    return ScheduleView(
        id=schedule.id,
        name=schedule.name,
        cron=schedule.cron,
        timezone=schedule.timezone,
        next_at=schedule.next_at,
        last_at=schedule.last_at,
        last_pipeline=schedule.last_pipeline,
        last_problem=schedule.last_problem,
        pipeline=schedule.request,
        created_at=schedule.created_at,
        links={
            "self": f"/schedules/{schedule.id}",
            **({"last_pipeline": f"/pipelines/{schedule.last_pipeline}"} if schedule.last_pipeline else {}),
        },
    )


def key_view(key: ApiKey) -> KeyView:
    return KeyView(
        id=key.id, name=key.name, scopes=key.scopes, created_at=key.created_at, revoked_at=key.revoked_at
    )
