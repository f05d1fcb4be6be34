"""Pipelines as users see them: jobs that are created, cancelled and tried again together."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session, aliased

from core.errors import Conflict, NotFound
from core.ids import new_id
from core.jobs.reasons import EndReason
from core.jobs.state import JobState
from core.jobs.views import PipelineEventView
from core.spec.job import PART_OF
from core.spec.parts.forms import PIPELINE_ID
from core.store.jobs import FRESH, JobStore, check_again
from core.store.moves import earliest_start, move, unmet
from core.store.new_jobs import NewJob, add_once, insert_job
from core.store.schema.access import EVERYTHING, Access
from core.store.schema.cursors import checked_cursor
from core.store.schema.database import Database
from core.store.schema.tables import Artifact, Dependency, EventRow, Job, Pipeline, PipelineEvent
from core.store.webhooks import note_change, pipeline_data


class PipelineStore:
    """What people do to pipelines. Each is one transaction over all of its jobs."""

    def __init__(self, database: Database, jobs: JobStore) -> None:
        self._database, self._jobs = database, jobs

    def create(
        self,
        name: str | None,
        labels: Mapping[str, str],
        order: Sequence[str],
        jobs: Sequence[NewJob],
        *,
        recipe: dict[str, Any] | None = None,
        access: Access = EVERYTHING,
        idempotency: tuple[str, str] | None = None,
    ) -> tuple[Pipeline, bool]:
        """Add a pipeline with all its jobs, or nothing. Returns (pipeline, whether it is new).

        ``order``: names of the stages as they were posted. ``jobs`` stand after those that they depend on;
        one without a stage is a part of another. ``idempotency`` as for `JobStore.submit`.
        """
        pipeline_id = new_id("pipe")

        def add(session: Session) -> Job:
            pipeline = Pipeline(
                id=pipeline_id,
                name=name,
                labels=dict(labels),
                owner=access.owner,
                stages=list(order),
                recipe=recipe,
                state=JobState.QUEUED,
                event_seq=0,
                created_at=session.scalar(select(self._database.time())),
            )
            session.add(pipeline)
            session.flush()
            note_change(self._database, session, pipeline, 0, pipeline_data(pipeline))
            for new in jobs:
                job = insert_job(
                    self._database, session, new.within(pipeline_id) if new.stage else new, access
                )
            return job

        job, is_new = add_once(self._database, access, idempotency, add)
        return self.get(str(job.pipeline_id)), is_new

    def replay(self, owner: str | None, key: str, sha256: str) -> Pipeline | None:
        """The pipeline that this very request has made before. Raises `Conflict` for another one's key."""
        job = self._jobs.replay(owner, key, sha256)
        return self.get(str(job.pipeline_id)) if job is not None else None

    def get(self, pipeline_id: str, access: Access = EVERYTHING) -> Pipeline:
        """Raises `NotFound`."""
        with self._database.read() as session:
            return get_pipeline(session, pipeline_id, access)

    def jobs_of(self, pipeline_ids: Sequence[str]) -> dict[str, dict[str, Job]]:
        """pipeline -> stage -> its job"""
        found: dict[str, dict[str, Job]] = {pipeline_id: {} for pipeline_id in pipeline_ids}
        with self._database.read() as session:
            for job in session.scalars(select(Job).where(Job.pipeline_id.in_(pipeline_ids))):
                found[str(job.pipeline_id)][str(job.stage)] = job
        return found

    def verdicts_of(self, jobs: Mapping[str, Job]) -> list[dict[str, Any]]:
        """What the reports of evaluation stages say, each with its ``stage``. ``jobs``: stage -> its job"""
        stages = {job.id: stage for stage, job in jobs.items() if job.kind == "evaluate"}
        query = select(Artifact.job_id, Artifact.manifest).where(
            Artifact.job_id.in_(stages), Artifact.output == "report"
        )
        with self._database.read() as session:
            found = {stages[str(job_id)]: manifest for job_id, manifest in session.execute(query)}
        return [
            {"stage": stage, **verdict}
            for stage in jobs
            if stage in found
            for verdict in found[stage].get("metadata", {}).get("verdicts", [])
        ]

    def needs_of(self, pipeline_id: str) -> dict[str, list[str]]:
        """stage -> the stages that must succeed before it starts"""
        child, parent = aliased(Job), aliased(Job)
        query = (
            select(child.stage, parent.stage)
            .join(Dependency, Dependency.job_id == child.id)
            .join(parent, parent.id == Dependency.depends_on)
            .where(child.pipeline_id == pipeline_id, parent.pipeline_id == pipeline_id)
            .order_by(parent.id)
        )
        found: dict[str, list[str]] = {}
        with self._database.read() as session:
            for stage, needed in session.execute(query):
                found.setdefault(str(stage), []).append(str(needed))
        return found

    def page(
        self,
        *,
        state: str | None = None,
        labels: Mapping[str, str] | None = None,
        access: Access = EVERYTHING,
        cursor: str | None = None,
        limit: int = 50,
    ) -> tuple[list[Pipeline], str | None]:
        """Newest first. Returns (pipelines, cursor of the next page or None)."""
        query = select(Pipeline).where(access.visible(Pipeline)).order_by(Pipeline.id.desc()).limit(limit + 1)
        if state:
            query = query.where(Pipeline.state == state)
        for key, value in (labels or {}).items():
            query = query.where(Pipeline.labels[key].as_string() == value)
        if cursor is not None:
            query = query.where(Pipeline.id < checked_cursor(cursor, PIPELINE_ID))
        with self._database.read() as session:
            rows = list(session.scalars(query))
        return rows[:limit], rows[limit - 1].id if len(rows) > limit else None

    def cancel(self, pipeline_id: str, access: Access = EVERYTHING) -> Pipeline:
        """Ends all jobs that have not ended. Raises `Conflict` when there are none."""
        with self._database.write() as session:
            active = [
                job
                for job in self._locked_jobs(session, pipeline_id, access)
                if not JobState(job.state).final
            ]
            if not active:
                raise Conflict(f"Pipeline {pipeline_id} has already ended")
            # From the last on, so that each is cancelled for itself and not for what it depends on.
            for job in reversed(active):
                self._jobs.cancel_within(session, job)
        return self.get(pipeline_id)

    def retry(self, pipeline_id: str, access: Access = EVERYTHING) -> Pipeline:
        """Puts all failed and cancelled jobs back: to the queue, or behind those that they depend on.

        What has succeeded stays. Raises `Conflict` when nothing has failed or was cancelled, and while jobs
        of it still run or wait.
        """
        with self._database.write() as session:
            jobs = self._locked_jobs(session, pipeline_id, access)
            if active := [job for job in jobs if not JobState(job.state).final]:
                names = ", ".join(f"{job.stage} ({job.state})" for job in active[:5])
                raise Conflict(f"Pipeline {pipeline_id} has not ended yet: {names}")
            ended = [job for job in jobs if job.state != JobState.SUCCEEDED]
            if not ended:
                raise Conflict(f"Pipeline {pipeline_id} has succeeded: there is nothing to retry")
            own = {job.id for job in jobs}
            for job in ended:
                missing = unmet(session, job.id)
                if outside := [parent for parent in missing if parent.id not in own and not _part(parent)]:
                    names = ", ".join(f"{parent.id} ({parent.state})" for parent in outside)
                    raise Conflict(f"Stage {job.stage!r} depends on {names}: retry that first")
                for part in filter(_part, missing):
                    self._put_back(session, part)
            for job in ended:
                self._put_back(session, job)
        return self.get(pipeline_id)

    def _put_back(self, session: Session, job: Job) -> None:
        """An ended job back to the queue, or to wait where something that it depends on has not succeeded."""
        source = JobState(job.state)
        if source not in (JobState.FAILED, JobState.CANCELLED):
            return
        check_again(self._database, session, job)
        target = JobState.WAITING if unmet(session, job.id) else JobState.QUEUED
        values = {**FRESH, "failures": 0, "not_before": earliest_start(self._database, session, job)}
        moved = move(self._database, session, job.id, source, target, **values)
        assert moved is not None, "the row is locked"

    @staticmethod
    def _locked_jobs(session: Session, pipeline_id: str, access: Access) -> list[Job]:
        """In the order of their ids, which is one in which each comes after what it depends on."""
        access.check_change(get_pipeline(session, pipeline_id, access))
        query = select(Job).where(Job.pipeline_id == pipeline_id).order_by(Job.id).with_for_update()
        return list(session.scalars(query))

    def events(self, pipeline_id: str, after: int = 0, limit: int = 500) -> list[PipelineEventView]:
        """The events of all jobs with a number above ``after``, in the order in which they were written."""
        columns = (
            PipelineEvent.seq,
            EventRow.attempt,
            EventRow.type,
            EventRow.at,
            EventRow.data,
            Job.id.label("job"),
            Job.stage,
        )
        query = (
            select(*columns)
            .join(
                EventRow,
                (EventRow.job_id == PipelineEvent.job_id) & (EventRow.seq == PipelineEvent.job_seq),
            )
            .join(Job, Job.id == PipelineEvent.job_id)
            .where(PipelineEvent.pipeline_id == pipeline_id, PipelineEvent.seq > after)
            .order_by(PipelineEvent.seq)
            .limit(limit)
        )
        with self._database.read() as session:
            return [PipelineEventView.model_validate(dict(row)) for row in session.execute(query).mappings()]


def get_pipeline(session: Session, pipeline_id: str, access: Access = EVERYTHING) -> Pipeline:
    """Raises `NotFound`, also for a pipeline that the caller may not see."""
    query = select(Pipeline).where(Pipeline.id == pipeline_id, access.visible(Pipeline))
    pipeline = session.scalar(query)
    if pipeline is None:
        raise NotFound(f"Pipeline not found: {pipeline_id!r}")
    return pipeline


def _part(job: Job) -> bool:
    """Whether a job is a part of a stage, and no stage itself."""
    return job.stage is None and PART_OF in job.labels


def end_reason_of(jobs: Mapping[str, Job]) -> tuple[str, str] | None:
    """Why a pipeline did not succeed: (code, sentence) of the stage whose end came first."""
    ended = [job for job in jobs.values() if job.state in (JobState.FAILED, JobState.CANCELLED)]
    if not ended:
        return None
    first = min(
        ended,
        key=lambda job: (job.end_code == EndReason.DEPENDENCY_FAILED, job.finished_at or job.created_at),
    )
    return first.end_code or "", f"Stage {first.stage}: {first.end_message}"
