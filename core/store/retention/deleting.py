"""Deleting jobs, pipelines and artifacts: rows at once, files afterwards (`core.store.retention.files`)."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, and_, delete, exists, or_, select
from sqlalchemy.orm import Session, aliased

from core.errors import Conflict, NotFound
from core.jobs.state import JobState
from core.spec.job import PART_OF
from core.store.moves import get_job
from core.store.pipelines.pipelines import get_pipeline
from core.store.retention.checkpoints import CHECKPOINT, checkpoints_of
from core.store.retention.files import forget, leave, note_deleted, run_folder_of
from core.store.retention.needs import ACTIVE, need_of
from core.store.schema.access import EVERYTHING, Access
from core.store.schema.database import Database
from core.store.schema.tables import (
    Artifact,
    Dependency,
    EventRow,
    IdempotencyKey,
    Job,
    JobInput,
    LogChunk,
    Metric,
    Pipeline,
    PipelineEvent,
    UnreferencedFolder,
)


class RetentionStore:
    """Deletes what nothing needs. Whatever something needs stays, whoever asks."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- on request --------------------------------------------------------------------------------

    def pin(self, artifact_id: str, access: Access = EVERYTHING, *, pinned: bool = True) -> Artifact:
        """Keep an artifact until it is unpinned. Raises `NotFound` or `Forbidden`."""
        with self._database.write() as session:
            artifact = self._own(session, artifact_id, access)
            if pinned and artifact.pinned_at is None:
                artifact.pinned_at = session.scalar(select(self._database.time()))
            elif not pinned:
                artifact.pinned_at = None
            return artifact

    def delete_artifact(self, artifact_id: str, access: Access = EVERYTHING) -> None:
        """Raises `NotFound`, `Forbidden`, and `Conflict` while something needs it."""
        with self._database.write() as session:
            artifact = self._own(session, artifact_id, access)
            if need := need_of(session, artifact):
                raise Conflict(f"Artifact {artifact_id} cannot be deleted: {need}")
            forget(self._database, session, artifact)

    def delete_job(self, job_id: str, access: Access = EVERYTHING) -> None:
        """Delete an ended job, its parts, and what they have made.

        Raises `NotFound`, `Forbidden`, and `Conflict` for one that has not ended, for a stage of a pipeline,
        and while something needs one of its outputs.
        """
        with self._database.write() as session:
            job = get_job(session, job_id, access, lock=True)
            access.check_change(job)
            whole = job.labels.get(PART_OF)
            if whole is not None and session.get(Job, whole) is not None:
                raise Conflict(f"Job {job_id} is a part of job {whole}: it is deleted with it")
            if not JobState(job.state).final:  # before its parts are locked: they lock it when they end
                raise Conflict(f"Job {job_id} is {job.state}: only ended jobs can be deleted")
            if job.pipeline_id is not None:
                raise Conflict(
                    f"Job {job_id} belongs to pipeline {job.pipeline_id}: it is deleted with the pipeline"
                )
            self._delete_jobs(session, [job, *self._parts(session, job)])

    def delete_pipeline(self, pipeline_id: str, access: Access = EVERYTHING) -> None:
        """Delete an ended pipeline with all its jobs and what they have made. Raises as `delete_job` does."""
        with self._database.write() as session:
            pipeline = get_pipeline(session, pipeline_id, access)
            access.check_change(pipeline)
            query = select(Job).where(Job.pipeline_id == pipeline_id).order_by(Job.id).with_for_update()
            stages = session.scalars(query).all()
            self._delete_jobs(
                session, [*stages, *(part for job in stages for part in self._parts(session, job))]
            )
            session.execute(delete(Pipeline).where(Pipeline.id == pipeline_id))

    # -- by age ------------------------------------------------------------------------------------

    def expired(
        self, *, artifact_days: float | None, checkpoint_days: float | None, after: str = "", limit: int = 500
    ) -> list[Artifact]:
        """Artifacts that are old enough to go, by id: weights of checkpoints whose job has ended, and outputs
        of jobs that are not the newest version of their name. Uploads never are.

        Some of them may be needed: `delete_unless_needed` looks. ``after``: an id, for the next page.
        """
        conditions = []
        if checkpoint_days is not None:
            ended = exists().where(
                Job.id == Artifact.job_id, Job.finished_at < self._ago(checkpoint_days), _FINAL
            )
            conditions.append(and_(Artifact.kind == CHECKPOINT, ended))
        if artifact_days is not None:
            newer = aliased(Artifact)
            old = and_(
                Artifact.kind != CHECKPOINT,
                Artifact.job_id.is_not(None),
                Artifact.created_at < self._ago(artifact_days),
                exists().where(Job.id == Artifact.job_id, _FINAL),
                or_(
                    Artifact.name.is_(None),
                    exists().where(
                        newer.kind == Artifact.kind,
                        newer.name == Artifact.name,
                        newer.owner.is_not_distinct_from(Artifact.owner),
                        newer.version > Artifact.version,
                    ),
                ),
            )
            conditions.append(old)
        if not conditions:
            return []
        query = select(Artifact).where(or_(*conditions), Artifact.pinned_at.is_(None), Artifact.id > after)
        with self._database.read() as session:
            return list(session.scalars(query.order_by(Artifact.id).limit(limit)))

    def need(self, artifact: Artifact) -> str | None:
        """What needs an artifact now, for whoever only wants to look."""
        with self._database.read() as session:
            return need_of(session, artifact)

    def delete_unless_needed(self, artifact_id: str) -> bool:
        """Whether it is gone now."""
        try:
            self.delete_artifact(artifact_id)
        except Conflict:
            return False
        except NotFound:
            pass
        return True

    def ended_for(self, job_ids: Sequence[str]) -> dict[str, float | None]:
        """Days since each job has ended; None where it has not. Jobs that do not exist are not in it."""
        with self._database.read() as session:
            now = session.scalar(select(self._database.time()))
            assert now is not None
            query = select(Job.id, Job.state, Job.finished_at).where(Job.id.in_(job_ids))
            return {
                job_id: (now - finished).total_seconds() / 86_400
                if JobState(state).final and finished is not None
                else None
                for job_id, state, finished in session.execute(query)
            }

    def leave_checkpoints(self, job_id: str, days: float) -> bool:
        """Have the checkpoints of a job removed that ended that long ago, unless it is tried again before.
        Returns whether it is such a job."""
        with self._database.write() as session:
            old = select(Job.id).where(Job.id == job_id, _FINAL, Job.finished_at < self._ago(days))
            if session.scalar(old.with_for_update()) is None:
                return False
            leave(self._database, session, checkpoints_of(job_id))
            return True

    def were_deleted(self, job_ids: Sequence[str]) -> set[str]:
        """Those of jobs that are not there any more which were deleted here, and are not of another
        database."""
        places = {run_folder_of(job_id): job_id for job_id in job_ids}
        query = select(UnreferencedFolder.uri).where(UnreferencedFolder.uri.in_(list(places)))
        with self._database.read() as session:
            return {places[uri] for uri in session.scalars(query)}

    def _ago(self, days: float) -> ColumnElement[datetime]:
        return self._database.time(-days * 86_400)

    # -- rows --------------------------------------------------------------------------------------

    @staticmethod
    def _own(session: Session, artifact_id: str, access: Access) -> Artifact:
        """The artifact's row, locked after that of its job: jobs that come meanwhile wait for us."""
        maker = session.scalar(select(Artifact.job_id).where(Artifact.id == artifact_id))
        if maker is not None:
            session.scalar(select(Job.id).where(Job.id == maker).with_for_update())
        query = select(Artifact).where(Artifact.id == artifact_id, access.visible(Artifact))
        artifact = session.scalar(query.with_for_update())
        if artifact is None:
            raise NotFound(f"Artifact not found: {artifact_id!r}")
        access.check_change(artifact)
        return artifact

    @staticmethod
    def _parts(session: Session, whole: Job) -> list[Job]:
        query = (
            select(Job)
            .join(Dependency, Dependency.depends_on == Job.id)
            .where(Dependency.job_id == whole.id, Job.labels[PART_OF].as_string() == whole.id)
        )
        return list(session.scalars(query.order_by(Job.id).with_for_update(of=Job)))

    def _delete_jobs(self, session: Session, jobs: Sequence[Job]) -> None:
        """Jobs whose rows the caller has locked."""
        ids = [job.id for job in jobs]
        for job in jobs:
            if not JobState(job.state).final:
                raise Conflict(f"Job {job.id} is {job.state}: only ended jobs can be deleted")
        waiting = (
            select(Job)
            .join(Dependency, Dependency.job_id == Job.id)
            .where(Dependency.depends_on.in_(ids), Job.id.not_in(ids), Job.state.in_(ACTIVE))
        )
        if (child := session.scalar(waiting.limit(1))) is not None:
            raise Conflict(f"Job {child.id} ({child.state}) depends on it: it cannot be deleted yet")
        made = select(Artifact).where(Artifact.job_id.in_(ids)).order_by(Artifact.id).with_for_update()
        # The last one first: of the jobs that go together one may have made what another has read.
        for artifact in reversed(session.scalars(made).all()):
            if need := need_of(session, artifact):
                raise Conflict(f"Its output {artifact.output} ({artifact.id}) cannot be deleted: {need}")
            forget(self._database, session, artifact)
        of_jobs: list[ColumnElement[bool]] = [
            PipelineEvent.job_id.in_(ids),
            EventRow.job_id.in_(ids),
            Metric.job_id.in_(ids),
            LogChunk.job_id.in_(ids),
            IdempotencyKey.job_id.in_(ids),
            JobInput.job_id.in_(ids),
            or_(Dependency.job_id.in_(ids), Dependency.depends_on.in_(ids)),
        ]
        tables = (PipelineEvent, EventRow, Metric, LogChunk, IdempotencyKey, JobInput, Dependency)
        for table, condition in zip(tables, of_jobs, strict=True):
            session.execute(delete(table).where(condition))
        session.execute(delete(Job).where(Job.id.in_(ids)))
        for job_id in ids:
            leave(self._database, session, checkpoints_of(job_id))
            note_deleted(self._database, session, job_id)


_FINAL = Job.state.in_([state for state in JobState if state.final])
