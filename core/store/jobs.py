"""A job's row from submission to end. The only module that writes a state.

Every move is one guarded UPDATE (``WHERE id AND state AND lease_token``) and one event row in the same
transaction. When no row is updated the caller is stale: it gets an error and must write nothing more.
"""

import random
import secrets
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from core.errors import BadRequest, Conflict, NotFound, StaleLease
from core.ids import new_id
from core.jobs.events import EventType
from core.jobs.reasons import EndReason
from core.jobs.state import JobState, can_move
from core.spec import SPEC_VERSION
from core.spec.job import JobSpec
from core.store.artifacts import NewArtifact, add_artifact
from core.store.database import Database
from core.store.tables import Dependency, EventRow, IdempotencyKey, Job

Row = Job


@dataclass(frozen=True)
class Capacity:
    """What one worker can take on right now."""

    worker: str
    free_gpus: int = 0
    has_gpus: bool = False
    gpu_memory_bytes: int = 0


@dataclass(frozen=True)
class Claim:
    """The right to run one attempt of a job, and to write to its row until the lease is lost."""

    job_id: str
    token: str
    attempt: int
    kind: str
    spec: dict[str, Any]
    inputs: dict[str, Any]
    latest: dict[str, Any] = field(default_factory=dict)
    timeout_seconds: float | None = None


@dataclass(frozen=True)
class Requests:
    """What the user has asked of a running job."""

    cancel: bool = False
    pause: bool = False


@dataclass(frozen=True)
class RetryPolicy:
    """Capped exponential delay with full jitter, so that jobs felled together do not return together."""

    base_seconds: float = 2.0
    cap_seconds: float = 300.0

    def delay(self, failures: int) -> float:
        """Seconds to wait after so many failures (1 is the first)."""
        ceiling = min(self.cap_seconds, self.base_seconds * 2.0 ** min(failures - 1, 30))
        return ceiling * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret


class JobStore:
    """Everything that happens to job rows, but for what a running job reports (`ProgressStore`)."""

    def __init__(self, database: Database, retry: RetryPolicy | None = None) -> None:
        self._database = database
        self._retry = retry or RetryPolicy()

    # -- submitting and reading ------------------------------------------------------------------

    def submit(
        self,
        spec: JobSpec,
        *,
        owner: str | None = None,
        inputs: dict[str, Any] | None = None,
        depends_on: list[str] | None = None,
        idempotency: tuple[str, str] | None = None,
    ) -> tuple[Row, bool]:
        """Adds a job, waiting when it depends on unfinished ones. Returns (job, whether it is new).

        ``idempotency`` is (key, sha256 of the request): the same pair again returns the first job.
        Raises `Conflict` for the same key with another request, `NotFound` for an unknown dependency.
        """
        try:
            with self._database.write() as session:
                if idempotency and (known := self._replay(session, owner, *idempotency)):
                    return known, False
                return self._insert(session, spec, owner, inputs or {}, depends_on or [], idempotency), True
        except IntegrityError:
            # The same key came in twice at once and the other one won.
            if idempotency:
                with self._database.read() as session:
                    if known := self._replay(session, owner, *idempotency):
                        return known, False
            raise

    @staticmethod
    def _replay(session: Session, owner: str | None, key: str, sha256: str) -> Row | None:
        held = session.get(IdempotencyKey, (owner or "", key))
        if held is None:
            return None
        if held.request_sha256 != sha256:
            raise Conflict(f"Idempotency-Key {key!r} was used for another request (job {held.job_id})")
        return session.get_one(Job, held.job_id)

    def _insert(
        self,
        session: Session,
        spec: JobSpec,
        owner: str | None,
        inputs: dict[str, Any],
        depends_on: list[str],
        idempotency: tuple[str, str] | None,
    ) -> Row:
        now = session.scalar(select(self._database.time()))
        parents = dict.fromkeys([*spec.depends_on, *depends_on])
        # Locked, so that a parent cannot end between this look and our commit and leave us waiting for ever.
        found = session.scalars(
            select(Job).where(Job.id.in_(parents)).order_by(Job.id).with_for_update()
        ).all()
        if missing := set(parents) - {job.id for job in found}:
            raise NotFound(f"depends_on names unknown jobs: {', '.join(sorted(missing))}")
        for parent in found:
            if parent.state in (JobState.FAILED, JobState.CANCELLED):
                raise Conflict(f"Job {parent.id}, which this one depends on, is {parent.state}")
        unfinished = any(parent.state != JobState.SUCCEEDED for parent in found)
        gpus, memory = spec.resources.gpus, spec.resources.gpu_memory_gb
        job = Job(
            id=new_id("job"),
            kind=str(getattr(spec, "kind", "")),
            name=spec.name,
            labels=spec.labels,
            spec=spec.model_dump(mode="json"),
            spec_version=SPEC_VERSION,
            owner=owner,
            state=JobState.WAITING if unfinished else JobState.QUEUED,
            priority=spec.priority,
            rank=-spec.priority,
            wants_gpu="auto" if gpus == "auto" else "yes" if gpus else "no",
            gpu_memory_bytes=None if memory == "auto" else int(memory * 1e9),
            not_before=now,
            max_attempts=spec.max_attempts,
            inputs=inputs,
            event_seq=1,
            created_at=now,
            # Spelled out, so that the object is whole without another look at the row.
            attempt=0, failures=0, cancel_requested=False, pause_requested=False,
            progress={}, latest={}, memory={}, outputs={}, log_seq=0,
        )  # fmt: skip
        session.add(job)
        session.flush()
        session.add_all(Dependency(job_id=job.id, depends_on=parent) for parent in parents)
        session.add(
            EventRow(
                job_id=job.id,
                seq=1,
                attempt=0,
                type=EventType.STATE,
                at=now,
                data={"state": job.state, "attempt": 0},
            )
        )
        if idempotency:
            key, sha256 = idempotency
            session.add(IdempotencyKey(owner=owner or "", key=key, job_id=job.id, request_sha256=sha256))
        return job

    def get(self, job_id: str) -> Row:
        """Raises `NotFound`."""
        with self._database.read() as session:
            return _get(session, job_id)

    def page(
        self,
        *,
        state: str | None = None,
        kind: str | None = None,
        labels: dict[str, str] | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> tuple[list[Row], str | None]:
        """Newest first. Returns (jobs, cursor of the next page or None)."""
        query = select(Job).order_by(Job.id.desc()).limit(limit + 1)
        if state:
            query = query.where(Job.state == state)
        if kind:
            query = query.where(Job.kind == kind)
        for key, value in (labels or {}).items():
            query = query.where(Job.labels[key].as_string() == value)
        if cursor:
            if not cursor.startswith("job_"):
                raise BadRequest(f"cursor {cursor!r} is not one that this list gave")
            query = query.where(Job.id < cursor)
        with self._database.read() as session:
            rows = list(session.scalars(query))
        return rows[:limit], rows[limit - 1].id if len(rows) > limit else None

    def queue_position(self, job: Row) -> int | None:
        """How many queued jobs come before it; None unless it is queued."""
        if job.state != JobState.QUEUED:
            return None
        ahead = or_(Job.rank < job.rank, and_(Job.rank == job.rank, Job.id < job.id))
        with self._database.read() as session:
            return session.scalar(select(func.count()).where(Job.state == JobState.QUEUED, ahead)) or 0

    def depth(self) -> dict[str, int]:
        """How many jobs are in each state."""
        with self._database.read() as session:
            rows = session.execute(select(Job.state, func.count()).group_by(Job.state)).all()
        return {row[0]: row[1] for row in rows}

    # -- claiming --------------------------------------------------------------------------------

    def _fits(self, capacity: Capacity, any_gpu_worker: bool) -> ColumnElement[bool]:
        wants = ["no"]
        if capacity.free_gpus > 0:
            wants += ["auto", "yes"]
        elif not capacity.has_gpus and not any_gpu_worker:
            wants += ["auto"]  # nobody has a GPU: the CPU it is
        return and_(
            Job.state == JobState.QUEUED,
            Job.not_before <= self._database.time(),
            Job.wants_gpu.in_(wants),
            or_(
                Job.gpu_memory_bytes.is_(None),
                Job.wants_gpu == "no",
                Job.gpu_memory_bytes <= capacity.gpu_memory_bytes,
            ),
        )

    def claimable(self, capacity: Capacity, *, any_gpu_worker: bool = False) -> bool:
        """Whether `claim` would find a job now."""
        with self._database.read() as session:
            return bool(session.scalar(select(exists().where(self._fits(capacity, any_gpu_worker)))))

    def claim(
        self, capacity: Capacity, lease_seconds: float, *, any_gpu_worker: bool = False
    ) -> Claim | None:
        """Takes the best job that fits: priority, then age. None when there is none."""
        best = (
            select(Job.id)
            .where(self._fits(capacity, any_gpu_worker))
            .order_by(Job.rank, Job.id)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        with self._database.write() as session:
            job_id = session.scalar(best)
            if job_id is None:
                return None
            token = secrets.token_hex(16)
            job = self._move(
                session,
                job_id,
                JobState.QUEUED,
                JobState.RUNNING,
                lease_token=token,
                lease_expires_at=self._database.time(lease_seconds),
                worker=capacity.worker,
                attempt=Job.attempt + 1,
                started_at=func.coalesce(Job.started_at, self._database.time()),
                phase="starting",
                cancel_requested=False,
                pause_requested=False,
            )
            if job is None:
                return None
            return Claim(
                job_id=job.id,
                token=token,
                attempt=job.attempt,
                kind=job.kind,
                spec=job.spec,
                inputs=job.inputs,
                latest=job.latest,
                timeout_seconds=job.spec.get("timeout_seconds"),
            )

    def renew(self, claim: Claim, lease_seconds: float) -> Requests:
        """Prolongs the lease; tells what the user wants. Raises `StaleLease` when it is lost.

        A lease that has run out but that nobody has taken back yet is still the worker's own.
        """
        with self._database.write() as session:
            row = session.execute(
                update(Job)
                .where(Job.id == claim.job_id, Job.state == JobState.RUNNING, Job.lease_token == claim.token)
                .values(lease_expires_at=self._database.time(lease_seconds))
                .returning(Job.cancel_requested, Job.pause_requested)
            ).one_or_none()
        if row is None:
            raise StaleLease(f"Job {claim.job_id}: the lease of attempt {claim.attempt} is lost")
        return Requests(*row)

    # -- ending ----------------------------------------------------------------------------------

    def finish(
        self,
        claim: Claim,
        reason: EndReason,
        message: str | None = None,
        outputs: list[NewArtifact] | None = None,
    ) -> Row:
        """Ends the attempt: the job's final state, or back to the queue. Raises `StaleLease`."""
        with self._database.write() as session:
            job = session.scalar(
                select(Job)
                .where(Job.id == claim.job_id, Job.state == JobState.RUNNING, Job.lease_token == claim.token)
                .with_for_update()
            )
            if job is None:
                raise StaleLease(f"Job {claim.job_id}: the lease of attempt {claim.attempt} is lost")
            references = {
                artifact.output: add_artifact(session, job, artifact, self._database.time())
                for artifact in outputs or []
            }
            return self._end_attempt(session, job, reason, message, references)

    def expire_leases(self) -> list[str]:
        """Takes back every job whose worker has gone silent. Returns their ids."""
        late = and_(Job.state == JobState.RUNNING, Job.lease_expires_at < self._database.time())
        with self._database.read() as session:  # the common case costs no write lock
            if not session.scalar(select(exists().where(late))):
                return []
        with self._database.write() as session:
            query = select(Job).where(late).order_by(Job.id).with_for_update(skip_locked=True)
            jobs = list(session.scalars(query))
            for job in jobs:
                self._end_attempt(session, job, EndReason.WORKER_LOST, f"Lost on {job.worker}")
            return [job.id for job in jobs]

    def _end_attempt(
        self,
        session: Session,
        job: Row,
        reason: EndReason,
        message: str | None,
        outputs: dict[str, str] | None = None,
    ) -> Row:
        """From running to where the reason leads. The caller holds the row's lock."""
        values: dict[str, Any] = {"lease_token": None, "lease_expires_at": None, "phase": None}
        target = reason.state
        if reason.retryable or reason is EndReason.INTERRUPTED:
            if job.cancel_requested:
                reason, target, message = EndReason.CANCELLED, JobState.CANCELLED, None
            elif job.pause_requested:
                reason, target, message = EndReason.PAUSED, JobState.PAUSED, None
        if reason.retryable:
            values["failures"] = failures = job.failures + 1
            if failures < job.max_attempts:
                target = JobState.QUEUED
                values["not_before"] = self._database.time(self._retry.delay(failures))
            elif failures > 1:
                message = f"{message or reason.sentence} (given up after {failures} attempts)"
        if target is JobState.QUEUED:
            values["worker"] = None
        if target.final:
            values["finished_at"] = self._database.time()
        if outputs:
            values["outputs"] = outputs
        moved = self._move(
            session,
            job.id,
            JobState.RUNNING,
            target,
            lease=job.lease_token,
            reason=reason,
            message=message,
            **values,
        )
        if moved is None:
            raise StaleLease(f"Job {job.id} moved on by itself")
        if target.final:
            self._tell_dependents(session, moved)
        return moved

    def _tell_dependents(self, session: Session, parent: Row) -> None:
        """Frees or cancels the jobs that waited for this one, and those that waited for them."""
        waiting = (
            select(Job)
            .join(Dependency, Dependency.job_id == Job.id)
            .where(Dependency.depends_on == parent.id, Job.state == JobState.WAITING)
            .order_by(Job.id)
            .with_for_update(of=Job)
        )
        for child in session.scalars(waiting).all():
            if parent.state == JobState.SUCCEEDED:
                if not self._unmet(session, child.id):
                    self._move(session, child.id, JobState.WAITING, JobState.QUEUED)
                continue
            ended = self._move(
                session,
                child.id,
                JobState.WAITING,
                JobState.CANCELLED,
                reason=EndReason.DEPENDENCY_FAILED,
                message=f"Job {parent.id} is {parent.state}",
                finished_at=self._database.time(),
            )
            if ended is not None:
                self._tell_dependents(session, ended)

    @staticmethod
    def _unmet(session: Session, job_id: str) -> list[Row]:
        return list(
            session.scalars(
                select(Job)
                .join(Dependency, Dependency.depends_on == Job.id)
                .where(Dependency.job_id == job_id, Job.state != JobState.SUCCEEDED)
            )
        )

    # -- what users ask for ----------------------------------------------------------------------

    def cancel(self, job_id: str) -> Row:
        """At once where nothing runs, else by a request that the supervisor sees within a second."""
        with self._database.write() as session:
            job = _get(session, job_id, lock=True)
            if job.state == JobState.RUNNING:
                return self._request(session, job, "cancel_requested")
            if JobState(job.state).final:
                raise Conflict(f"Job {job_id} is already {job.state}")
            ended = self._move(
                session,
                job_id,
                JobState(job.state),
                JobState.CANCELLED,
                reason=EndReason.CANCELLED,
                finished_at=self._database.time(),
            )
            assert ended is not None, "the row is locked"
            self._tell_dependents(session, ended)
            return ended

    def pause(self, job_id: str) -> Row:
        """A running job saves a checkpoint and stops; a queued one is held back."""
        with self._database.write() as session:
            job = _get(session, job_id, lock=True)
            if job.state == JobState.RUNNING:
                return self._request(session, job, "pause_requested")
            return self._ask(session, job, JobState.PAUSED, "pause", reason=EndReason.PAUSED)

    def resume(self, job_id: str) -> Row:
        """A paused job back to the queue; it goes on from its last checkpoint."""
        with self._database.write() as session:
            job = _get(session, job_id, lock=True)
            if job.state != JobState.PAUSED:
                raise Conflict(f"Job {job_id} is {job.state}: only a paused job can be resumed")
            return self._ask(session, job, JobState.QUEUED, "resume", **_FRESH)

    def retry(self, job_id: str) -> Row:
        """A failed or cancelled job back to the queue, with all its attempts before it."""
        with self._database.write() as session:
            job = _get(session, job_id, lock=True)
            if job.state not in (JobState.FAILED, JobState.CANCELLED):
                raise Conflict(f"Job {job_id} is {job.state}: only a failed or cancelled job can be retried")
            if unmet := self._unmet(session, job_id):
                names = ", ".join(f"{parent.id} ({parent.state})" for parent in unmet)
                raise Conflict(
                    f"Job {job_id} depends on {names}: retry that first, or submit this one again after it"
                )
            return self._ask(session, job, JobState.QUEUED, "retry", failures=0, **_FRESH)

    def _ask(self, session: Session, job: Row, target: JobState, verb: str, **values: Any) -> Row:
        if not can_move(JobState(job.state), target):
            raise Conflict(f"Job {job.id} is {job.state}: it cannot be asked to {verb}")
        if target is JobState.QUEUED:
            values["not_before"] = self._database.time()
        moved = self._move(session, job.id, JobState(job.state), target, **values)
        assert moved is not None, "the row is locked"
        return moved

    def _request(self, session: Session, job: Row, column: str) -> Row:
        if not getattr(job, column):
            setattr(job, column, True)
            job.event_seq += 1
            _add_event(
                session,
                job,
                EventType.NOTICE,
                self._database.time(),
                {"level": "info", "message": f"{column}"},
            )
        return job

    # -- the one door ----------------------------------------------------------------------------

    def _move(
        self,
        session: Session,
        job_id: str,
        source: JobState,
        target: JobState,
        *,
        lease: str | None = None,
        reason: EndReason | None = None,
        message: str | None = None,
        **values: Any,
    ) -> Row | None:
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
        data = {"state": target.value, "attempt": job.attempt}
        if reason is not None:
            data |= {"reason": reason.value, "message": message or reason.sentence}
        _add_event(session, job, EventType.STATE, self._database.time(), data)
        return job


_FRESH: dict[str, Any] = {
    "cancel_requested": False,
    "pause_requested": False,
    "end_code": None,
    "end_message": None,
    "finished_at": None,
    "worker": None,
}


def _get(session: Session, job_id: str, *, lock: bool = False) -> Row:
    query = select(Job).where(Job.id == job_id)
    job = session.scalar(query.with_for_update() if lock else query)
    if job is None:
        raise NotFound(f"There is no job {job_id!r}")
    return job


def _add_event(
    session: Session, job: Row, type: EventType, at: ColumnElement[datetime], data: dict[str, Any]
) -> None:
    session.flush()
    session.execute(
        insert(EventRow).values(
            job_id=job.id, seq=job.event_seq, attempt=job.attempt, type=type.value, at=at, data=data
        )
    )
