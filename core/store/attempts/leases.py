"""Claims and leases: who may run a job, for how long, and how an attempt ends."""

import random
import secrets
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, exists, func, not_, or_, select, true, update
from sqlalchemy.orm import Session

from core.errors import StaleLease
from core.jobs.events import EventType, Progress
from core.jobs.protocol import Input
from core.jobs.reasons import EndReason
from core.jobs.state import JobState
from core.store.artifacts import NewArtifact, add_artifact
from core.store.moves import move, tell_dependents
from core.store.schema.database import Database
from core.store.schema.tables import EventRow, GpuHold, Job, ResultHold

_PATIENCE_SECONDS = 300.0
"""How long a job that wants several GPUs lets smaller ones pass."""


@dataclass(frozen=True)
class Capacity:
    """What one worker can take on right now."""

    worker: str
    gpus: dict[str, int] = field(default_factory=dict)  # uuid -> bytes of memory; held ones too


@dataclass(frozen=True)
class Claim:
    """The right to run one attempt of a job, and to write to its row until the lease is lost."""

    job_id: str
    token: str
    attempt: int
    kind: str
    spec: dict[str, Any]
    spec_version: int
    inputs: dict[str, Input]
    gpus: list[str] = field(default_factory=list)  # uuids, this job's alone while it runs
    latest: dict[str, Any] = field(default_factory=dict)
    timeout_seconds: float | None = None
    owner: str | None = None  # id of the key that it was submitted with


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


def _made_elsewhere() -> ColumnElement[bool]:
    """Jobs that wait for the outputs of another, which is running."""
    return exists().where(ResultHold.key == Job.result_key, ResultHold.job_id != Job.id, Job.reuse.is_(True))


def _fit_on(gpus: dict[str, int]) -> ColumnElement[bool]:
    """Jobs for which there are enough of these GPUs, each large enough."""
    sizes = sorted(gpus.values(), reverse=True)
    enough = [
        and_(Job.gpu_count == count, or_(Job.gpu_memory_bytes.is_(None), Job.gpu_memory_bytes <= smallest))
        for count, smallest in enumerate(sizes, 1)
    ]
    return and_(Job.wants_gpu != "no", or_(*enough))


@dataclass(frozen=True)
class _FirstInTurn:
    """A job for which a host keeps those of its GPUs that it could use."""

    rank: int
    id: str
    needed: int  # bytes of a GPU

    @property
    def ahead(self) -> ColumnElement[bool]:
        """Jobs that come before it."""
        return or_(Job.rank < self.rank, and_(Job.rank == self.rank, Job.id < self.id))

    def leaves(self, free: dict[str, int]) -> dict[str, int]:
        """The GPUs that are too small for it."""
        return {uuid: size for uuid, size in free.items() if size < self.needed}


@dataclass(frozen=True)
class EqualJob:
    """A job that has made the result that another is about to make."""

    job_id: str
    outputs: list[NewArtifact]
    latest: dict[str, Any]


def held_job(session: Session, claim: Claim) -> Job:
    """The claimed job's row, locked. Raises `StaleLease`."""
    job = session.scalar(
        select(Job)
        .where(Job.id == claim.job_id, Job.state == JobState.RUNNING, Job.lease_token == claim.token)
        .with_for_update()
    )
    if job is None:
        raise StaleLease(f"Job {claim.job_id}: the lease of attempt {claim.attempt} is lost")
    return job


class LeaseStore:
    """What a worker does to job rows. One that has lost its lease gets `StaleLease` and writes nothing."""

    def __init__(self, database: Database, retry: RetryPolicy | None = None) -> None:
        self._database = database
        self._retry = retry or RetryPolicy()

    @staticmethod
    def _free_gpus(session: Session, capacity: Capacity) -> dict[str, int]:
        """The worker's GPUs that no job holds. Workers may share a host, and so its GPUs."""
        if not capacity.gpus:
            return {}
        held = set(session.scalars(select(GpuHold.uuid).where(GpuHold.uuid.in_(capacity.gpus))))
        return {uuid: memory for uuid, memory in capacity.gpus.items() if uuid not in held}

    def _fits(
        self,
        capacity: Capacity,
        free: dict[str, int],
        first: "_FirstInTurn | None",
        any_gpu_worker: bool,
    ) -> ColumnElement[bool]:
        """What a worker may claim now."""
        kinds = [Job.wants_gpu == "no"]
        if free and first is None:
            kinds.append(_fit_on(free))
        elif free and first is not None:
            kinds.append(and_(_fit_on(free), first.ahead))
            if left := first.leaves(free):
                kinds.append(_fit_on(left))
        elif not capacity.gpus and not any_gpu_worker:
            kinds.append(Job.wants_gpu == "auto")  # nobody has a GPU: the CPU it is
        now = self._database.time()
        return and_(Job.state == JobState.QUEUED, Job.not_before <= now, or_(*kinds), not_(_made_elsewhere()))

    def _first_in_turn(
        self, session: Session, capacity: Capacity, free: dict[str, int]
    ) -> "_FirstInTurn | None":
        """A job that has long waited for several GPUs of this host, if there is one.

        Else smaller jobs would take each one that becomes free, and it would wait for ever.
        """
        if len(free) == len(capacity.gpus):
            return None
        waiting = session.execute(
            select(Job.rank, Job.id, Job.gpu_memory_bytes)
            .where(
                Job.state == JobState.QUEUED,
                Job.gpu_count > 1,
                Job.not_before <= self._database.time(-_PATIENCE_SECONDS),
                not_(_made_elsewhere()),
                _fit_on(capacity.gpus),
                not_(_fit_on(free)),
            )
            .order_by(Job.rank, Job.id)
            .limit(1)
        ).one_or_none()
        return waiting and _FirstInTurn(waiting.rank, waiting.id, waiting.gpu_memory_bytes or 0)

    def claimable(self, capacity: Capacity, *, any_gpu_worker: bool = False) -> bool:
        """Whether `claim` would find a job now."""
        with self._database.read() as session:
            free = self._free_gpus(session, capacity)
            first = self._first_in_turn(session, capacity, free)
            fits = self._fits(capacity, free, first, any_gpu_worker)
            return bool(session.scalar(select(exists().where(fits))))

    def claim(
        self, capacity: Capacity, lease_seconds: float, *, any_gpu_worker: bool = False
    ) -> Claim | None:
        """Takes the best job that fits: priority, then age. None when there is none."""
        with self._database.write() as session:
            free = self._free_gpus(session, capacity)
            first = self._first_in_turn(session, capacity, free)
            best = session.execute(
                select(
                    Job.id,
                    Job.wants_gpu,
                    Job.gpu_count,
                    Job.gpu_memory_bytes,
                    (true() if first is None else first.ahead).label("ahead"),
                )
                .where(self._fits(capacity, free, first, any_gpu_worker))
                .order_by(Job.rank, Job.id)
                .limit(1)
                .with_for_update(skip_locked=True)
            ).one_or_none()
            if best is None:
                return None
            gpus: list[str] = []
            if best.wants_gpu != "no" and capacity.gpus:
                usable = free if first is None or best.ahead else first.leaves(free)
                large = {uuid: size for uuid, size in usable.items() if size >= (best.gpu_memory_bytes or 0)}
                gpus = self._hold_gpus(session, best.id, large, best.gpu_count)
                if not gpus:
                    return None  # another worker of this host was quicker
            token = secrets.token_hex(16)
            job = move(
                self._database,
                session,
                best.id,
                JobState.QUEUED,
                JobState.RUNNING,
                lease_token=token,
                lease_expires_at=self._database.time(lease_seconds),
                worker=capacity.worker,
                attempt=Job.attempt + 1,
                started_at=func.coalesce(Job.started_at, self._database.time()),
                phase="starting",
                end_code=None,
                end_message=None,
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
                spec_version=job.spec_version,
                inputs=job.inputs,
                gpus=gpus,
                latest=job.latest,
                timeout_seconds=job.spec.get("timeout_seconds"),
                owner=job.owner,
            )

    def _hold_gpus(self, session: Session, job_id: str, free: dict[str, int], count: int) -> list[str]:
        """The smallest ones, as the job's own until it stops running; none when there are too few."""
        held: list[str] = []
        for uuid in sorted(free, key=lambda uuid: (free[uuid], uuid)):  # one order for all: no deadlock
            # A row that another transaction is just inserting is waited for.
            hold = self._database.insert(GpuHold).values(uuid=uuid, job_id=job_id).on_conflict_do_nothing()
            if session.scalar(hold.returning(GpuHold.uuid)):
                held.append(uuid)
            if len(held) == count:
                return held
        session.execute(delete(GpuHold).where(GpuHold.job_id == job_id))
        return []

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

    def finish(
        self,
        claim: Claim,
        reason: EndReason,
        message: str | None = None,
        outputs: list[NewArtifact] | None = None,
        *,
        equal: EqualJob | None = None,
        inputs_changed: bool = False,
    ) -> Job:
        """Ends the attempt: the job's final state, or back to the queue. Raises `StaleLease`.

        ``equal``: whose outputs these are. ``inputs_changed``: the result is not that of the job's key.
        """
        with self._database.write() as session:
            job = held_job(session, claim)
            if inputs_changed:
                job.result_key = None
            if equal is not None:
                job.reused_from, job.latest = equal.job_id, equal.latest
                job.progress = Progress(fraction=1.0)
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

    @staticmethod
    def _came_further(session: Session, job: Job) -> bool:
        """Whether this attempt has saved a checkpoint of a later step than any before."""
        query = select(EventRow.attempt, EventRow.data).where(
            EventRow.job_id == job.id, EventRow.type == EventType.CHECKPOINT.value
        )
        steps: dict[bool, int] = {True: -1, False: -1}
        for attempt, data in session.execute(query):
            own = attempt == job.attempt
            steps[own] = max(steps[own], int(data.get("step", -1)))
        return steps[True] > steps[False]

    def _end_attempt(
        self,
        session: Session,
        job: Job,
        reason: EndReason,
        message: str | None,
        outputs: dict[str, str] | None = None,
    ) -> Job:
        """From running to where the reason leads. The caller holds the row's lock."""
        values: dict[str, Any] = {"lease_token": None, "lease_expires_at": None, "phase": None}
        target = reason.state
        # What the user has asked meanwhile stands, however the attempt ended short of its goal.
        if reason.retryable or reason in (EndReason.INTERRUPTED, EndReason.PAUSED):
            if job.cancel_requested:
                reason, target, message = EndReason.CANCELLED, JobState.CANCELLED, None
            elif job.pause_requested:
                reason, target, message = EndReason.PAUSED, JobState.PAUSED, None
        if reason.retryable:
            # An attempt that came further than those before it is no repetition of their failure.
            before = 0 if self._came_further(session, job) else job.failures
            values["failures"] = failures = before + 1
            if failures < job.max_attempts:
                target = JobState.QUEUED
                values["not_before"] = self._database.time(self._retry.delay(failures))
            elif failures > 1:
                message = (
                    f"{message or reason.sentence} (no more retries: {failures} failed attempts in a row)"
                )
        if target is JobState.QUEUED:
            values["worker"] = None
        if target.final:
            values["finished_at"] = self._database.time()
        if outputs:
            values["outputs"] = outputs
        moved = move(
            self._database,
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
            raise StaleLease(f"Job {job.id} has changed its state meanwhile")
        if target.final:
            tell_dependents(self._database, session, moved)
        return moved
