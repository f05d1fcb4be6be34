"""Results that are made once: a job takes the outputs of an equal one, or waits for the one that runs."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from core.jobs.events import EventType
from core.jobs.origin import Origin
from core.jobs.state import JobState
from core.store.artifacts import NewArtifact
from core.store.attempts.leases import Claim, EqualJob, held_job
from core.store.moves import move, tell
from core.store.schema.database import Database
from core.store.schema.tables import Artifact, EventRow, Job, ResultHold


@dataclass(frozen=True)
class Beginning:
    """What a claimed job shall do: wait in the queue, take the outputs of another, or else run."""

    waits: bool = False
    equal: EqualJob | None = None


class ReuseStore:
    """Decides it under a lock on the result's key, so that of equal jobs one runs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, claim: Claim, origin: Origin | None, key: str | None) -> Beginning:
        """Note what the claimed job's result depends on, and say what the job shall do.

        One that waits is back in the queue, where nobody claims it before the other has ended. Without
        ``origin`` nobody has looked. Raises `StaleLease`.
        """
        with self._database.write() as session:
            job = held_job(session, claim)
            if key is not None and job.result_scope is not None:
                key = hashlib.sha256(f"{job.result_scope} {key}".encode()).hexdigest()
            if job.origin is not None and job.result_key != key and self._goes_on(session, job):
                key = None  # a part of the result was made by other code, on another device, of other inputs
            job.origin, job.result_key = origin or job.origin, key
            # Who asks it to stop is answered by its supervisor: from the queue the request would be gone.
            if not job.reuse or key is None or job.cancel_requested or job.pause_requested:
                return Beginning()
            # First the hold, then the look: who held it a moment ago has succeeded by now, or never will.
            if not self._hold(session, key, job.id):
                self._put_back(session, job, key)
                return Beginning(waits=True)
            return Beginning(equal=self._equal(session, job, key))

    @staticmethod
    def _goes_on(session: Session, job: Job) -> bool:
        """Whether this attempt begins with what an earlier one has left."""
        if job.attempt == 1:
            return False
        if job.kind == "evaluate":  # it keeps each measurement
            return True
        saved = exists().where(EventRow.job_id == job.id, EventRow.type == EventType.CHECKPOINT.value)
        return bool(session.scalar(select(saved)))

    def made_by(self, job: Job) -> str | None:
        """The id of the running job for whose outputs a queued one waits."""
        if not job.reuse or job.result_key is None:
            return None
        query = select(ResultHold.job_id).where(ResultHold.key == job.result_key, ResultHold.job_id != job.id)
        with self._database.read() as session:
            return session.scalar(query)

    def _hold(self, session: Session, key: str, job_id: str) -> bool:
        # A row that another transaction is just inserting or deleting is waited for.
        hold = self._database.insert(ResultHold).values(key=key, job_id=job_id).on_conflict_do_nothing()
        return session.scalar(hold.returning(ResultHold.key)) is not None

    def _put_back(self, session: Session, job: Job, key: str) -> None:
        holder = session.scalar(select(ResultHold.job_id).where(ResultHold.key == key))
        other = f"Job {holder}" if holder else "Another job"
        told = f"{other} is making the same result now: this job waits for it."
        tell(self._database, session, job, told)
        moved = move(
            self._database,
            session,
            job.id,
            JobState.RUNNING,
            JobState.QUEUED,
            lease=job.lease_token,
            lease_token=None,
            lease_expires_at=None,
            phase=None,
            worker=None,
        )
        assert moved is not None, "the row is locked"

    @staticmethod
    def _equal(session: Session, job: Job, key: str) -> EqualJob | None:
        """The newest job that has made this result, and of whose outputs none was deleted."""
        query = select(Job).where(Job.result_key == key, Job.state == JobState.SUCCEEDED, Job.id != job.id)
        for found in session.scalars(query.order_by(Job.finished_at.desc(), Job.id.desc())):
            of_job = select(Artifact).where(Artifact.job_id == found.id, Artifact.output.in_(found.outputs))
            made = session.scalars(of_job.order_by(Artifact.id)).all()
            if {artifact.output for artifact in made} == set(found.outputs):
                return EqualJob(found.reused_from or found.id, _outputs(made), found.latest)
        return None


def _outputs(made: Sequence[Artifact]) -> list[NewArtifact]:
    return [
        NewArtifact(
            output=artifact.output,
            kind=artifact.kind,
            uri=artifact.uri,
            sha256=artifact.sha256,
            bytes=artifact.bytes,
            manifest=artifact.manifest,
        )
        for artifact in made
    ]
