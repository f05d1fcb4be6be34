"""What needs an artifact: as long as there is something, it is not deleted, by nobody."""

from collections.abc import Iterator

from sqlalchemy import Text, cast, exists, select
from sqlalchemy.orm import Session

from core.jobs.protocol import ArtifactInput
from core.jobs.state import JobState
from core.store.schema.tables import Artifact, CurrentVersion, Dependency, Job, JobInput, Schedule

ACTIVE = [state for state in JobState if not state.final]

_USED_WITH: dict[str, str] = {"embeddings": "model", "checkpoint": "base_model"}
"""Kinds of artifacts that are of no use without an input of their job: the field of the spec that names it.
A search needs the model that made the vectors, an export the model that was trained."""


def need_of(session: Session, artifact: Artifact) -> str | None:
    """What needs the artifact, in a sentence; None where nothing does.

    The caller has locked the rows of the artifact and of the job that made it.
    """
    return next(_needs(session, artifact), None)


def _needs(session: Session, artifact: Artifact) -> Iterator[str]:
    if artifact.pinned_at is not None:
        yield "it is pinned"
    current = exists().where(CurrentVersion.artifact_id == artifact.id)
    if session.scalar(select(current)):
        yield f"it is {artifact.name}@current"
    reads = select(Job).join(JobInput, JobInput.job_id == Job.id).where(JobInput.artifact_id == artifact.id)
    if job := session.scalar(reads.where(Job.state.in_(ACTIVE)).order_by(Job.id).limit(1)):
        yield f"job {job.id} ({job.state}) reads it"
    if artifact.job_id is not None:
        waits = (
            select(Job)
            .join(Dependency, Dependency.job_id == Job.id)
            .where(Dependency.depends_on == artifact.job_id, Job.state.in_(ACTIVE))
        )
        if job := session.scalar(waits.order_by(Job.id).limit(1)):
            yield f"job {job.id} ({job.state}) depends on the job that made it"
    made = (
        select(Artifact, Job)
        .join(Job, Job.id == Artifact.job_id)
        .join(JobInput, JobInput.job_id == Job.id)
        .where(JobInput.artifact_id == artifact.id, Artifact.kind.in_(list(_USED_WITH)))
    )
    for other, job in session.execute(made.order_by(Artifact.id)):
        known = job.inputs.get(str(job.spec.get(_USED_WITH[other.kind])))
        if isinstance(known, ArtifactInput) and known.artifact == artifact.id:
            yield f"{other.kind} {other.id} cannot be used without it"
    named = select(Schedule.id).where(cast(Schedule.request, Text).contains(artifact.id, autoescape=True))
    if schedule := session.scalar(named.order_by(Schedule.id).limit(1)):
        yield f"schedule {schedule} names it"
