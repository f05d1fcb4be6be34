"""The one door through which a state changes.

Every move is one guarded UPDATE (``WHERE id AND state AND lease_token``) and one event row in the same
transaction. When no row is updated the caller is stale: it gets None and must write nothing more.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import Session

from core.errors import NotFound
from core.jobs.events import EventData, Notice, StateChange
from core.jobs.reasons import EndReason
from core.jobs.state import JobState, can_move
from core.spec.job import PART_OF
from core.store.pipelines.events import note_events
from core.store.schema.access import EVERYTHING, Access
from core.store.schema.database import Database
from core.store.schema.tables import Dependency, EventRow, GpuHold, Job, ResultHold
from core.store.webhooks import job_data, note_change


def move(
    database: Database,
    session: Session,
    job_id: str,
    source: JobState,
    target: JobState,
    *,
    lease: str | None = None,
    reason: EndReason | None = None,
    message: str | None = None,
    **values: Any,
) -> Job | None:
    """One transition and its event. None when the row was not in ``source``, or under another lease."""
    assert can_move(source, target), f"{source} -> {target} is not a move"
    if reason is not None:
        values |= {"end_code": reason.value, "end_message": message or reason.sentence}
    job = session.scalar(
        update(Job)
        .where(
            Job.id == job_id,
            Job.state == source,
            Job.lease_token.is_(None) if lease is None else Job.lease_token == lease,
        )
        .values(state=target.value, event_seq=Job.event_seq + 1, **values)
        .returning(Job)
        .execution_options(populate_existing=True)
    )
    if job is None:
        return None
    if source is JobState.RUNNING:
        session.execute(delete(GpuHold).where(GpuHold.job_id == job_id))
        session.execute(delete(ResultHold).where(ResultHold.job_id == job_id))
    change = StateChange(state=target, attempt=job.attempt)
    if reason is not None:
        change.reason, change.message = reason.value, message or reason.sentence
        change.reused_from = job.reused_from
    add_event(database, session, job, change)
    return job


_ENDED = {JobState.FAILED: "has failed", JobState.CANCELLED: "was cancelled"}


def tell_dependents(database: Database, session: Session, parent: Job) -> None:
    """Frees or cancels the jobs that waited for this one, and those that waited for them."""
    waiting = (
        select(Job)
        .join(Dependency, Dependency.job_id == Job.id)
        .where(Dependency.depends_on == parent.id, Job.state == JobState.WAITING)
        .order_by(Job.id)
        .with_for_update(of=Job)
    )
    named = f"Stage {parent.stage}" if parent.stage else f"Job {parent.id}"
    for child in session.scalars(waiting).all():
        if parent.state == JobState.SUCCEEDED:
            if not unmet(session, child.id):
                move(
                    database,
                    session,
                    child.id,
                    JobState.WAITING,
                    JobState.QUEUED,
                    not_before=earliest_start(database, session, child),  # from here on it waits for a worker
                )
            continue
        ended = move(
            database,
            session,
            child.id,
            JobState.WAITING,
            JobState.CANCELLED,
            reason=EndReason.DEPENDENCY_FAILED,
            message=f"{named} {_ENDED[JobState(parent.state)]}",
            finished_at=database.time(),
        )
        if ended is not None:
            tell_dependents(database, session, ended)
            end_parts(database, session, ended)


def earliest_start(database: Database, session: Session, job: Job) -> datetime:
    """When a job that goes to the queue may start: now, or at the moment that was set for it."""
    now = session.scalar(select(database.time()))
    assert now is not None
    begins: datetime = max(now, job.not_before) if job.attempt == 0 else now
    return begins


def end_parts(database: Database, session: Session, whole: Job) -> None:
    """Cancel the parts of a mine job whose merge job will never run.

    Rows that others hold just now are passed over: they are ending themselves.
    """
    parts = (
        select(Job)
        .join(Dependency, Dependency.depends_on == Job.id)
        .where(
            Dependency.job_id == whole.id,
            Job.labels[PART_OF].as_string() == whole.id,
            Job.state.in_([state for state in JobState if not state.final]),
        )
        .order_by(Job.id)
        .with_for_update(of=Job, skip_locked=True)
    )
    message = f"Job {whole.id}, of which this job is a part, is {whole.state}"
    for part in session.scalars(parts).all():
        if part.state == JobState.RUNNING:
            request(database, session, part, "cancel_requested", message)
            continue
        move(
            database,
            session,
            part.id,
            JobState(part.state),
            JobState.CANCELLED,
            reason=EndReason.CANCELLED,
            message=message,
            finished_at=database.time(),
        )


def request(database: Database, session: Session, job: Job, column: str, message: str) -> Job:
    """Asks a running job for something; its supervisor sees it within a second. Asked once, told once."""
    if not getattr(job, column):
        setattr(job, column, True)
        tell(database, session, job, message)
    return job


def tell(database: Database, session: Session, job: Job, message: str) -> None:
    """Write a sentence for the user among the job's events. The caller holds the row's lock."""
    job.event_seq += 1
    add_event(database, session, job, Notice(message=message))


def unmet(session: Session, job_id: str) -> list[Job]:
    """The jobs that this one still waits for."""
    return list(
        session.scalars(
            select(Job)
            .join(Dependency, Dependency.depends_on == Job.id)
            .where(Dependency.job_id == job_id, Job.state != JobState.SUCCEEDED)
        )
    )


def get_job(session: Session, job_id: str, access: Access = EVERYTHING, *, lock: bool = False) -> Job:
    """Raises `NotFound`, also for a job that the caller may not see."""
    query = select(Job).where(Job.id == job_id, access.visible(Job))
    job = session.scalar(query.with_for_update() if lock else query)
    if job is None:
        raise NotFound(f"Job not found: {job_id!r}")
    return job


def add_event(database: Database, session: Session, job: Job, data: EventData) -> None:
    """Write an event, whose number the job's row has already."""
    session.flush()
    session.execute(
        insert(EventRow).values(
            job_id=job.id,
            seq=job.event_seq,
            attempt=job.attempt,
            type=data.type.value,
            at=database.time(),
            data=data.model_dump(mode="json"),
        )
    )
    if isinstance(data, StateChange):
        note_change(database, session, job, job.event_seq, job_data(job))
    note_events(
        database,
        session,
        job.pipeline_id,
        job.id,
        [job.event_seq],
        states_changed=isinstance(data, StateChange),
    )
