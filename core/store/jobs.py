"""Job rows as users see them: submitting, looking, cancelling, pausing, resuming, retrying."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import and_, func, or_, select
from sqlalchemy import update as sql_update
from sqlalchemy.orm import Session

from core.errors import Conflict, NotFound
from core.jobs.reasons import EndReason
from core.jobs.state import JobState, can_move
from core.spec.job import PART_OF, JobChanges
from core.spec.parts.forms import JOB_ID
from core.store.lineage import note_inputs
from core.store.moves import earliest_start, end_parts, get_job, move, request, tell, tell_dependents, unmet
from core.store.new_jobs import NewJob, add_once, insert_job, replay
from core.store.retention.checkpoints import checkpoints_of
from core.store.retention.files import keep_checkpoints
from core.store.schema.access import EVERYTHING, Access
from core.store.schema.cursors import checked_cursor
from core.store.schema.database import Database
from core.store.schema.tables import Dependency, Job


class JobStore:
    """What people do to job rows. Workers use `LeaseStore` and `ProgressStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- submitting and reading ------------------------------------------------------------------

    def submit(
        self,
        new: NewJob,
        *,
        parts: Sequence[NewJob] = (),
        access: Access = EVERYTHING,
        idempotency: tuple[str, str] | None = None,
    ) -> tuple[Job, bool]:
        """Adds a job, waiting when it depends on unfinished ones. Returns (job, whether it is new).

        ``parts`` are jobs of its own, on which it depends: all are added, or none. ``idempotency`` as for
        `add_once`. Raises `NotFound` for an unknown dependency.
        """

        def add(session: Session) -> Job:
            for part in parts:
                insert_job(self._database, session, part, access)
            return insert_job(self._database, session, new, access)

        return add_once(self._database, access, idempotency, add)

    def replay(self, owner: str | None, key: str, sha256: str) -> Job | None:
        """The job that this very request has made before. Raises `Conflict` for another request's key."""
        with self._database.read() as session:
            return replay(session, owner, key, sha256)

    def get(self, job_id: str, access: Access = EVERYTHING) -> Job:
        """Raises `NotFound`."""
        with self._database.read() as session:
            return get_job(session, job_id, access)

    def page(
        self,
        *,
        state: str | None = None,
        kind: str | None = None,
        labels: dict[str, str] | None = None,
        pipeline: str | None = None,
        search: str | None = None,
        access: Access = EVERYTHING,
        cursor: str | None = None,
        limit: int = 50,
    ) -> tuple[list[Job], str | None]:
        """Newest first. ``search``: a part of the name, or of the id.

        Returns (jobs, cursor of the next page or None).
        """
        query = select(Job).where(access.visible(Job)).order_by(Job.id.desc()).limit(limit + 1)
        if state:
            query = query.where(Job.state == state)
        if kind:
            query = query.where(Job.kind == kind)
        if pipeline:
            query = query.where(Job.pipeline_id == pipeline)
        if search:
            of_name = Job.name.icontains(search, autoescape=True)
            found = select(Job.id).where(or_(of_name, Job.id.icontains(search, autoescape=True)))
            query = query.where(Job.id.in_(found))  # from the index alone
        for key, value in (labels or {}).items():
            query = query.where(Job.labels[key].as_string() == value)
        if cursor is not None:
            query = query.where(Job.id < checked_cursor(cursor, JOB_ID))
        with self._database.read() as session:
            rows = list(session.scalars(query))
        return rows[:limit], rows[limit - 1].id if len(rows) > limit else None

    def queue_position(self, job: Job) -> int | None:
        """How many queued jobs come before it; None unless it is queued."""
        if job.state != JobState.QUEUED:
            return None
        ahead = or_(Job.rank < job.rank, and_(Job.rank == job.rank, Job.id < job.id))
        with self._database.read() as session:
            due = or_(Job.not_before <= self._database.time(), Job.attempt > 0)
            return session.scalar(select(func.count()).where(Job.state == JobState.QUEUED, ahead, due)) or 0

    def unmet(self, job_id: str) -> list[Job]:
        """The jobs that this one still waits for, the oldest first."""
        with self._database.read() as session:
            return sorted(unmet(session, job_id), key=lambda job: job.id)

    def delay(self, job: Job) -> float:
        """Seconds by the database's clock until a queued job may be claimed; negative when it may be now."""
        with self._database.read() as session:
            now = session.scalar(select(self._database.time()))
        assert now is not None
        return float((job.not_before - now).total_seconds())

    def depth(self) -> dict[str, int]:
        """How many jobs are in each state."""
        with self._database.read() as session:
            rows = session.execute(select(Job.state, func.count()).group_by(Job.state)).all()
        return {row[0]: row[1] for row in rows}

    # -- what users ask for ----------------------------------------------------------------------

    def cancel(self, job_id: str, access: Access = EVERYTHING) -> Job:
        """At once where nothing runs, else by a request that the supervisor sees within a second."""
        with self._database.write() as session:
            job = self._own(session, job_id, access)
            if JobState(job.state).final:
                raise Conflict(f"Job {job_id} is already {job.state}")
            return self.cancel_within(session, job)

    def cancel_within(self, session: Session, job: Job) -> Job:
        """Cancels a job that has not ended, whose row the caller has locked."""
        if job.state == JobState.RUNNING:
            return self._request(session, job, "cancel_requested")
        ended = move(
            self._database,
            session,
            job.id,
            JobState(job.state),
            JobState.CANCELLED,
            reason=EndReason.CANCELLED,
            finished_at=self._database.time(),
        )
        assert ended is not None, "the row is locked"
        tell_dependents(self._database, session, ended)
        end_parts(self._database, session, ended)
        return ended

    def pause(self, job_id: str, access: Access = EVERYTHING) -> Job:
        """A running job saves a checkpoint and stops; a queued one is held back."""
        with self._database.write() as session:
            job = self._own(session, job_id, access)
            if job.state == JobState.RUNNING:
                return self._request(session, job, "pause_requested")
            return self._ask(session, job, JobState.PAUSED, "pause", reason=EndReason.PAUSED)

    def resume(self, job_id: str, access: Access = EVERYTHING) -> Job:
        """A paused job back to the queue; it goes on from its last checkpoint."""
        with self._database.write() as session:
            job = self._own(session, job_id, access)
            if job.state != JobState.PAUSED:
                raise Conflict(f"Job {job_id} is {job.state}: only a paused job can be resumed")
            return self._ask(session, job, JobState.QUEUED, "resume", **FRESH)

    def retry(self, job_id: str, access: Access = EVERYTHING) -> Job:
        """A failed or cancelled job back to the queue, with all its attempts before it."""
        with self._database.write() as session:
            job = self._own(session, job_id, access)
            if job.state not in (JobState.FAILED, JobState.CANCELLED):
                raise Conflict(f"Job {job_id} is {job.state}: only a failed or cancelled job can be retried")
            if missing := unmet(session, job_id):
                names = ", ".join(f"{parent.id} ({parent.state})" for parent in missing)
                raise Conflict(
                    f"Job {job_id} depends on {names}: retry that job first, or submit this one again"
                )
            check_again(self._database, session, job)
            return self._ask(session, job, JobState.QUEUED, "retry", failures=0, **FRESH)

    def change(self, job_id: str, changes: JobChanges, access: Access = EVERYTHING) -> Job:
        """A job's name, labels or priority, in its row and its spec. An attempt that runs goes on under the
        name that it began with."""
        given = {name: getattr(changes, name) for name in changes.model_fields_set}
        with self._database.write() as session:
            job = self._own(session, job_id, access)
            if "labels" in given and (whole := job.labels.get(PART_OF)):
                given["labels"] = {**given["labels"], PART_OF: whole}
            for name, value in given.items():
                setattr(job, name, value)
            job.rank = -job.priority
            job.spec = {**job.spec, **given}
            if "priority" in given:  # of a divided mine job the parts are what is claimed
                parts = select(Dependency.depends_on).where(Dependency.job_id == job_id)
                session.execute(
                    sql_update(Job)
                    .where(Job.id.in_(parts), Job.labels[PART_OF].as_string() == job_id)
                    .values(priority=job.priority, rank=job.rank)
                )
            told = ", ".join(f"{name} {value!r}" for name, value in given.items())
            tell(self._database, session, job, f"Changed on request: {told}")
        return job

    @staticmethod
    def _own(session: Session, job_id: str, access: Access) -> Job:
        """The locked row. Raises `NotFound`, or `Forbidden` where the caller may look only."""
        job = get_job(session, job_id, access, lock=True)
        access.check_change(job)
        return job

    def _ask(self, session: Session, job: Job, target: JobState, verb: str, **values: Any) -> Job:
        if not can_move(JobState(job.state), target):
            raise Conflict(f"Job {job.id} is {job.state}: {verb} is not possible in this state")
        if target is JobState.QUEUED:
            values["not_before"] = earliest_start(self._database, session, job)
        moved = move(self._database, session, job.id, JobState(job.state), target, **values)
        assert moved is not None, "the row is locked"
        return moved

    def _request(self, session: Session, job: Job, column: str) -> Job:
        return request(self._database, session, job, column, _ASKED[column])


def check_again(database: Database, session: Session, job: Job) -> None:
    """Whether a job can be tried again. Raises `Conflict` if what it reads was deleted, or while its
    checkpoints are."""
    try:
        note_inputs(database, session, job.id, job.inputs)
    except NotFound as error:
        raise Conflict(f"Job {job.id} cannot be tried again: what it reads is gone. {error}") from error
    if not keep_checkpoints(session, checkpoints_of(job.id)):
        raise Conflict(f"The old checkpoints of job {job.id} are just being removed: try again in a minute")


_ASKED = {
    "cancel_requested": "Asked to cancel: the job saves a checkpoint and ends.",
    "pause_requested": "Asked to pause: the job saves a checkpoint and waits.",
}

FRESH: dict[str, Any] = {
    "cancel_requested": False,
    "pause_requested": False,
    "end_code": None,
    "end_message": None,
    "finished_at": None,
    "worker": None,
}
