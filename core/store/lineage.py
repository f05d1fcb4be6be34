"""What was made of what: the jobs that made an artifact, what they read, and what was made of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from core.errors import NotFound
from core.jobs.protocol import ArtifactInput, Input
from core.store.schema.access import Access
from core.store.schema.database import Database
from core.store.schema.tables import Artifact, Job, JobInput

Direction = Literal["self", "up", "down"]

_MOST_JOBS = 500


def note_inputs(database: Database, session: Session, job_id: str, inputs: Mapping[str, Input]) -> None:
    """Remember which artifacts a job reads. Raises `NotFound` for one that was deleted."""
    known = _artifacts_of(inputs)
    if known:
        # Locked, so that none of them is deleted between this look and our commit.
        query = select(Artifact.id).where(Artifact.id.in_(known)).order_by(Artifact.id)
        there = session.scalars(query.with_for_update(read=True, key_share=True)).all()
        if missing := sorted(known - set(there)):
            raise NotFound(f"Deleted meanwhile: {', '.join(missing)}")
        rows = [{"job_id": job_id, "artifact_id": artifact} for artifact in sorted(known)]
        session.execute(database.insert(JobInput).values(rows).on_conflict_do_nothing())


def _artifacts_of(inputs: Mapping[str, Input]) -> set[str]:
    """Ids of the artifacts among a job's inputs."""
    return {
        found.artifact for found in inputs.values() if isinstance(found, ArtifactInput) and found.artifact
    }


@dataclass
class Lineage:
    """``artifacts`` and ``jobs`` by id, each with its direction as seen from the artifact that was asked for.

    ``whole_above``, ``whole_below``: nothing was left out there because there was too much of it, because the
    caller may not see it, or because it was deleted.
    """

    artifacts: dict[str, tuple[Artifact, Direction]] = field(default_factory=dict)
    jobs: dict[str, tuple[Job, Direction]] = field(default_factory=dict)
    whole_above: bool = True
    whole_below: bool = True


class LineageStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    def look(self, artifact: Artifact, access: Access) -> Lineage:
        """Everything above and below an artifact, nearest first."""
        found = Lineage({artifact.id: (artifact, "self")})
        with self._database.read() as session:
            self._up(session, artifact, access, found)
            self._down(session, artifact, access, found)
        return found

    def _up(self, session: Session, artifact: Artifact, access: Access, found: Lineage) -> None:
        waiting = [artifact]
        while waiting:
            makers = {one.job_id for one in waiting if one.job_id} - set(found.jobs)
            jobs = self._jobs(session, makers, access, found, "up")
            named = (_artifacts_of(job.inputs) for job in jobs.values())
            read = set[str]().union(*named) - set(found.artifacts)
            waiting = self._artifacts(session, Artifact.id.in_(list(read)), access, found, "up")
            found.whole_above &= len(waiting) == len(read)

    def _down(self, session: Session, artifact: Artifact, access: Access, found: Lineage) -> None:
        waiting = [artifact]
        while waiting:
            of = [one.id for one in waiting]
            readers = set(session.scalars(select(JobInput.job_id).where(JobInput.artifact_id.in_(of))))
            jobs = self._jobs(session, readers - set(found.jobs), access, found, "down")
            waiting = self._artifacts(session, Artifact.job_id.in_(list(jobs)), access, found, "down")

    @staticmethod
    def _jobs(
        session: Session, ids: set[str], access: Access, found: Lineage, direction: Direction
    ) -> dict[str, Job]:
        room = max(0, _MOST_JOBS - len(found.jobs))
        query = select(Job).where(Job.id.in_(ids), access.visible(Job)).order_by(Job.id).limit(room)
        jobs = {job.id: job for job in session.scalars(query)}
        if direction == "up":
            found.whole_above &= len(jobs) == len(ids)
        else:
            found.whole_below &= len(jobs) == len(ids)
        found.jobs |= {job_id: (job, direction) for job_id, job in jobs.items()}
        return jobs

    @staticmethod
    def _artifacts(
        session: Session, which: ColumnElement[bool], access: Access, found: Lineage, direction: Direction
    ) -> list[Artifact]:
        query = select(Artifact).where(which, access.visible(Artifact)).order_by(Artifact.id)
        artifacts = [one for one in session.scalars(query) if one.id not in found.artifacts]
        found.artifacts |= {one.id: (one, direction) for one in artifacts}
        return artifacts
