"""Pipelines that are submitted again and again. When is decided here; what is submitted, by the API."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, delete, exists, select, true

from core.errors import Conflict, NotFound
from core.ids import new_id
from core.spec.pipelines.schedule import CronSchedule
from core.store.schema.access import EVERYTHING, Access
from core.store.schema.database import Database, hold_text
from core.store.schema.tables import ApiKey, Schedule

_MOST = 200
"""Schedules of one key."""


@dataclass(frozen=True)
class Outcome:
    """What has become of a schedule's moment: a pipeline, or why there is none."""

    pipeline: str | None = None
    problem: str | None = None


class ScheduleStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self, name: str | None, times: CronSchedule, request: dict[str, Any], access: Access
    ) -> tuple[Schedule, bool]:
        """Add a schedule; the same one again is the one that there is. Returns (schedule, whether it is new).

        Raises `Conflict` when there are too many.
        """
        with self._database.write() as session:
            hold_text(session, f"schedules/{access.owner}")
            own = Schedule.owner.is_(None) if access.owner is None else Schedule.owner == access.owner
            known = session.scalars(select(Schedule).where(own)).all()
            for schedule in known:
                if (schedule.cron, schedule.timezone, schedule.request) == (
                    times.cron,
                    times.timezone,
                    request,
                ):
                    return schedule, False
            if len(known) >= _MOST:
                raise Conflict(f"There are {_MOST} schedules of this key: delete one first")
            now = session.scalar(select(self._database.time()))
            assert now is not None
            made = Schedule(
                id=new_id("sch"),
                name=name,
                owner=access.owner,
                sees_all=access.changes_all,
                cron=times.cron,
                timezone=times.timezone,
                request=request,
                created_at=now,
                next_at=times.next_after(now),
                last_at=None,
                last_pipeline=None,
                last_problem=None,
            )
            session.add(made)
        return made, True

    def get(self, schedule_id: str, access: Access = EVERYTHING) -> Schedule:
        """Raises `NotFound`, also for another key's."""
        query = select(Schedule).where(Schedule.id == schedule_id, _of(access))
        with self._database.read() as session:
            found = session.scalar(query)
        if found is None:
            raise NotFound(f"Schedule not found: {schedule_id!r}")
        return found

    def all(self, access: Access = EVERYTHING) -> Sequence[Schedule]:
        """The caller's, oldest first; of an administrator all."""
        with self._database.read() as session:
            return session.scalars(select(Schedule).where(_of(access)).order_by(Schedule.id)).all()

    def remove(self, schedule_id: str, access: Access = EVERYTHING) -> None:
        """Pipelines that it has submitted stay. Raises `NotFound`."""
        self.get(schedule_id, access)
        with self._database.write() as session:
            session.execute(delete(Schedule).where(Schedule.id == schedule_id))

    def due(self) -> Sequence[Schedule]:
        """Those whose moment has come."""
        with self._database.read() as session:
            query = select(Schedule).where(Schedule.next_at <= self._database.time())
            return session.scalars(query.order_by(Schedule.next_at)).all()

    def access_of(self, schedule: Schedule, *, private: bool) -> Access | None:
        """The rights that it was made with; None if its key was revoked. ``private``: whether keys see their
        own rows alone."""
        if schedule.owner is None:
            return EVERYTHING
        valid = exists().where(ApiKey.id == schedule.owner, ApiKey.revoked_at.is_(None))
        with self._database.read() as session:
            if not session.scalar(select(valid)):
                return None
        return Access(schedule.owner, schedule.sees_all or not private, schedule.sees_all)

    def note(self, schedule: Schedule, outcome: Outcome, *, moment: datetime | None = None) -> bool:
        """Remember what has become of it. With ``moment``, the one that was due, the next one is settled; of
        several servers that do so only the first does. Returns whether it was this one."""
        with self._database.write() as session:
            row = session.get(Schedule, schedule.id, with_for_update=True)
            if row is None:
                return False
            now = session.scalar(select(self._database.time()))
            assert now is not None
            if outcome.pipeline is not None:  # also by another server, for the same moment
                row.last_pipeline = outcome.pipeline
            if moment is not None and row.next_at != moment:
                return False
            row.last_at, row.last_problem = now, outcome.problem
            if moment is not None:
                # Moments that were missed while no server ran have been made up for by this one.
                times = CronSchedule.model_construct(cron=row.cron, timezone=row.timezone)
                row.next_at = times.next_after(max(now, moment))
            return True


def _of(access: Access) -> ColumnElement[bool]:
    return true() if access.changes_all else Schedule.owner == access.owner
