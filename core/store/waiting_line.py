"""Who waits, in which order, and when each may begin: from what runs, and how long its kind took before."""

import heapq
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from graphlib import TopologicalSorter

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from core.jobs.state import JobState
from core.store.fleet import alive_workers
from core.store.schema.access import EVERYTHING, Access
from core.store.schema.database import Database
from core.store.schema.tables import Job

_LOOKED_AT = 1000
"""Queued jobs that are followed: whoever stands behind them has no time yet."""

_SAMPLE = 20
"""Jobs of a kind that ended last, whose median is what another is expected to take."""

_ALIVE_SECONDS = 60.0


@dataclass(frozen=True)
class Waiting:
    """A queued job. ``starts_in_seconds`` is None where nobody can say: no worker, or no job of a kind that
    stands before it has ended yet."""

    job: Job
    position: int
    starts_in_seconds: float | None


class WaitingLine:
    def __init__(self, database: Database) -> None:
        self._database = database

    def look(self, access: Access = EVERYTHING) -> list[Waiting]:
        """The queued jobs that the caller may see, in the order in which they are claimed. Others' count for
        positions and times, and are not shown."""
        with self._database.read() as session:
            now = session.scalar(select(self._database.time()))
            assert now is not None
            slots = sum(worker.slots for worker, _ in alive_workers(self._database, session, _ALIVE_SECONDS))
            running = list(session.scalars(select(Job).where(Job.state == JobState.RUNNING)))
            # Those whose time has not come yet stand before nobody.
            of_queue = (
                select(Job)
                .where(Job.state == JobState.QUEUED, or_(Job.not_before <= now, Job.attempt > 0))
                .order_by(Job.rank, Job.id)
            )
            queued = list(session.scalars(of_queue.limit(_LOOKED_AT)))
            taken = _durations(session, {job.kind for job in (*running, *queued)})
        left = [_left(job, taken, now) for job in running]
        starts = expected_starts(slots, left, [taken.get(job.kind) for job in queued])
        return [
            Waiting(job, position, when)
            for position, (job, when) in enumerate(zip(queued, starts, strict=True))
            if access.sees(job)
        ]

    def time_left(self, jobs: Mapping[str, Job], needs: Mapping[str, Sequence[str]]) -> float | None:
        """Seconds until a pipeline ends, if its stages wait for nothing but each other and a free slot.

        ``jobs`` and ``needs`` are by stage. None where nobody can say: no worker, or a kind of job that has
        never ended.
        """
        ahead = {name: job for name, job in jobs.items() if not JobState(job.state).final}
        with self._database.read() as session:
            now = session.scalar(select(self._database.time()))
            assert now is not None
            slots = sum(worker.slots for worker, _ in alive_workers(self._database, session, _ALIVE_SECONDS))
            taken = _durations(session, {job.kind for job in ahead.values()})
        if not ahead:
            return 0.0
        left: dict[str, float] = {}
        for name, job in ahead.items():
            takes = _left(job, taken, now) if job.state == JobState.RUNNING else taken.get(job.kind)
            if takes is None or not slots:
                return None
            left[name] = takes
        ends: dict[str, float] = {}
        order = TopologicalSorter(
            {name: [need for need in needs.get(name, ()) if need in left] for name in left}
        )
        for name in order.static_order():
            begins = max((ends[need] for need in needs.get(name, ()) if need in ends), default=0.0)
            if ahead[name].state != JobState.RUNNING:
                begins = max(begins, (ahead[name].not_before - now).total_seconds())
            ends[name] = begins + left[name]
        return round(max([*ends.values(), sum(left.values()) / slots]), 1)


def _durations(session: Session, kinds: Iterable[str]) -> dict[str, float]:
    """Seconds that jobs of each kind usually take. Those that took another's outputs do not count."""
    taken = {}
    for kind in kinds:
        ended = select(Job.started_at, Job.finished_at).where(
            Job.kind == kind, Job.state == JobState.SUCCEEDED, Job.reused_from.is_(None)
        )
        times = session.execute(ended.order_by(Job.id.desc()).limit(_SAMPLE)).all()
        spans = [(end - begin).total_seconds() for begin, end in times if begin and end]
        if spans:
            taken[kind] = statistics.median(spans)
    return taken


def _left(job: Job, taken: Mapping[str, float], now: datetime) -> float | None:
    """Seconds that a running job still has: by its own word, else by others of its kind."""
    if job.progress.eta_seconds is not None:
        return max(0.0, job.progress.eta_seconds)
    if job.kind not in taken or job.started_at is None:
        return None
    return max(0.0, taken[job.kind] - (now - job.started_at).total_seconds())


def expected_starts(
    slots: int, running: Sequence[float | None], queued: Sequence[float | None]
) -> list[float | None]:
    """When each queued job begins, in seconds, if each of ``slots`` takes the next as soon as it is free.

    ``running`` are the seconds that running jobs still have, ``queued`` those that the queued ones take, in
    their order; None for what nobody knows: a slot that has such a job is not counted on.
    """
    free = sorted([math.inf if left is None else left for left in running])[:slots]
    free += [0.0] * (slots - len(free))
    heapq.heapify(free)
    starts: list[float | None] = []
    for takes in queued:
        begins = heapq.heappop(free) if free else math.inf
        starts.append(None if math.isinf(begins) else round(begins, 1))
        heapq.heappush(free, math.inf if takes is None else begins + takes)
    return starts
