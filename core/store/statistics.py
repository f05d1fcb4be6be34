"""Numbers of the whole service, for monitoring."""

from dataclasses import dataclass

from sqlalchemy import func, select

from core.jobs.state import JobState
from core.store.fleet import alive_workers
from core.store.schema.database import Database
from core.store.schema.tables import Artifact, GpuHold, Job, Worker


@dataclass(frozen=True)
class Statistics:
    """One look at every table that monitoring asks about."""

    jobs: dict[str, int]  # by state
    ended: dict[tuple[str, str], int]  # by (kind, end reason), final states only
    attempts: int  # begun, of all jobs; never sinks
    oldest_queued_seconds: float  # of those that could run now; 0.0 when none waits
    workers: list[tuple[Worker, int]]  # heard of in the last minute, with the number of jobs that each runs
    held_gpus: frozenset[str]
    artifacts: dict[str, tuple[int, int]]  # kind -> (how many, bytes)


class StatisticsStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    def take(self) -> Statistics:
        """Raises `Unavailable`."""
        final = [state for state in JobState if state.final]
        time = self._database.time
        with self._database.read() as session:
            now = session.scalar(select(time()))
            due = (Job.state == JobState.QUEUED, Job.not_before <= time())
            oldest = session.scalar(select(func.min(Job.not_before)).where(*due))
            ended = select(Job.kind, Job.end_code, func.count()).where(Job.state.in_(final))
            made = select(Artifact.kind, func.count(), func.sum(Artifact.bytes)).group_by(Artifact.kind)
            return Statistics(
                jobs=dict(
                    session.execute(select(Job.state, func.count()).group_by(Job.state)).tuples().all()
                ),
                ended={
                    (kind, reason or "unknown"): count
                    for kind, reason, count in session.execute(ended.group_by(Job.kind, Job.end_code))
                },
                attempts=session.scalar(select(func.sum(Job.attempt))) or 0,
                oldest_queued_seconds=(now - oldest).total_seconds() if now and oldest else 0.0,
                workers=alive_workers(self._database, session, 60),
                held_gpus=frozenset(session.scalars(select(GpuHold.uuid))),
                artifacts={kind: (count, int(size)) for kind, count, size in session.execute(made)},
            )
