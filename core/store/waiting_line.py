"""Who waits, in which order, and when each may begin: from what runs, and how long its kind took before."""

import heapq
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

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
            of_queue = select(Job).where(Job.state == JobState.QUEUED).order_by(Job.rank, Job.id)
            queued = list(session.scalars(of_queue.limit(_LOOKED_AT)))
            taken = {}
            for kind in {job.kind for job in (*running, *queued)}:
                ended = select(Job.started_at, Job.finished_at).where(
                    Job.kind == kind, Job.state == JobState.SUCCEEDED
                )
                times = session.execute(ended.order_by(Job.id.desc()).limit(_SAMPLE)).all()
                spans = [(end - begin).total_seconds() for begin, end in times if begin and end]
                if spans:
                    taken[kind] = statistics.median(spans)
        left = [_left(job, taken, now) for job in running]
        starts = expected_starts(slots, left, [taken.get(job.kind) for job in queued])
        return [
            Waiting(job, position, when)
            for position, (job, when) in enumerate(zip(queued, starts, strict=True))
            if access.sees(job)
        ]


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
