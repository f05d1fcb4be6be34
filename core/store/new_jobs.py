"""New job rows: the one place where they are made, for single jobs and for pipelines."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from core.errors import Conflict, NotFound
from core.ids import new_id
from core.jobs.events import Memory, Progress, StateChange
from core.jobs.protocol import Input
from core.jobs.state import JobState
from core.spec import SPEC_VERSION
from core.spec.job import JobSpec
from core.store.lineage import note_inputs
from core.store.moves import add_event
from core.store.schema.access import Access
from core.store.schema.database import Database
from core.store.schema.tables import Dependency, IdempotencyKey, Job


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """A job that is to be added.

    ``depends_on``: ids of jobs that must succeed first, beside those that the spec names.
    ``least_gpu_memory``: bytes that a GPU must have for it, where its spec does not say.
    ``not_before``: the moment before which nobody claims it, if it depends on nothing. ``reuse``: whether it
    takes the outputs of an equal job instead of running. ``result_scope``: only jobs of
    the same one are equal.
    """

    spec: JobSpec
    id: str = field(default_factory=lambda: new_id("job"))
    inputs: Mapping[str, Input] = field(default_factory=dict)
    depends_on: Sequence[str] = ()
    least_gpu_memory: int | None = None
    pipeline_id: str | None = None
    stage: str | None = None
    reuse: bool = False
    result_scope: str | None = None
    not_before: datetime | None = None

    def within(self, pipeline_id: str) -> "NewJob":
        """The same job in a pipeline."""
        return replace(self, pipeline_id=pipeline_id)


def insert_job(database: Database, session: Session, new: NewJob, access: Access) -> Job:
    """Add a job, which waits when it depends on unfinished ones. It is the caller's, and may depend on what
    ``access`` lets the caller see.

    Raises `NotFound` for an unknown dependency and `Conflict` for one that did not succeed.
    """
    spec, now = new.spec, session.scalar(select(database.time()))
    assert now is not None
    parents = dict.fromkeys([*spec.depends_on, *new.depends_on])
    # Locked, so that a parent cannot end between this look and our commit and leave us waiting for ever.
    found = session.scalars(
        select(Job).where(Job.id.in_(parents), access.visible(Job)).order_by(Job.id).with_for_update()
    ).all()
    if missing := set(parents) - {job.id for job in found}:
        raise NotFound(f"depends_on names unknown jobs: {', '.join(sorted(missing))}")
    for parent in found:
        if parent.state in (JobState.FAILED, JobState.CANCELLED):
            raise Conflict(f"Job {parent.id}, which this one depends on, is {parent.state}")
    unfinished = any(parent.state != JobState.SUCCEEDED for parent in found)
    gpus, memory = spec.resources.gpus, spec.resources.gpu_memory_gb
    job = Job(
        id=new.id,
        kind=str(getattr(spec, "kind", "")),
        name=spec.name,
        labels=spec.labels,
        spec=spec.model_dump(mode="json"),
        spec_version=SPEC_VERSION,
        owner=access.owner,
        state=JobState.WAITING if unfinished else JobState.QUEUED,
        priority=spec.priority,
        rank=-spec.priority,
        wants_gpu="auto" if gpus == "auto" else "yes" if gpus else "no",
        gpu_count=max(1, gpus) if gpus != "auto" else 1,
        gpu_memory_bytes=new.least_gpu_memory if memory == "auto" else int(memory * 1e9),
        not_before=max(now, new.not_before) if new.not_before else now,
        max_attempts=spec.max_attempts,
        inputs=new.inputs,
        event_seq=1,
        pipeline_id=new.pipeline_id,
        stage=new.stage,
        reuse=new.reuse,
        result_scope=new.result_scope,
        created_at=now,
        # Spelled out, so that the object is whole without another look at the row.
        attempt=0, failures=0, cancel_requested=False, pause_requested=False,
        progress=Progress(), latest={}, memory=Memory(), outputs={}, log_seq=0,
    )  # fmt: skip
    session.add(job)
    session.flush()
    note_inputs(database, session, job.id, new.inputs)
    session.add_all(Dependency(job_id=job.id, depends_on=parent) for parent in parents)
    add_event(database, session, job, StateChange(state=JobState(job.state)))
    return job


def add_once(
    database: Database,
    access: Access,
    idempotency: tuple[str, str] | None,
    add: Callable[[Session], Job],
) -> tuple[Job, bool]:
    """What ``add`` adds, in one transaction, and the job that it gives. Returns (job, whether it is new).

    ``idempotency`` is (key, sha256 of the request): the same pair again returns the first job. Raises
    `Conflict` for the same key with another request.
    """
    try:
        with database.write() as session:
            if idempotency and (known := replay(session, access.owner, *idempotency)):
                return known, False
            job = add(session)
            if idempotency:
                key, sha256 = idempotency
                owner = access.owner or ""
                session.add(IdempotencyKey(owner=owner, key=key, job_id=job.id, request_sha256=sha256))
            return job, True
    except IntegrityError:
        # The same key came in twice at once and the other one won.
        if idempotency:
            with database.read() as session:
                if known := replay(session, access.owner, *idempotency):
                    return known, False
        raise


def replay(session: Session, owner: str | None, key: str, sha256: str) -> Job | None:
    """The job that this very request has made before; of a pipeline, one of its jobs.

    Raises `Conflict` for another request's key.
    """
    held = session.get(IdempotencyKey, (owner or "", key))
    if held is None:
        return None
    if held.request_sha256 != sha256:
        raise Conflict(f"Idempotency-Key {key!r} was used for another request (job {held.job_id})")
    return session.get_one(Job, held.job_id)
