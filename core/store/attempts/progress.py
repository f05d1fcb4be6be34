"""What a running job reports, in batches: events, metrics, logs and the row's live columns."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, insert, select
from sqlalchemy import update as sql_update
from sqlalchemy.orm import Session

from core.errors import StaleLease
from core.jobs.events import Event, EventType, Memory, Progress
from core.jobs.protocol import Input
from core.jobs.state import JobState
from core.jobs.views import EventView
from core.store.artifacts import NewArtifact, add_checkpoints
from core.store.attempts.leases import Claim, Requests
from core.store.lineage import note_inputs
from core.store.pipelines.events import note_events
from core.store.schema.database import Database
from core.store.schema.tables import EventRow, Job, LogChunk, Metric

_ROWS_AT_ONCE = 1000
"""Both databases limit the number of a statement's parameters."""


@dataclass
class ProgressUpdate:
    """About one second of a job's life. What is None of the row's columns stays as it is."""

    events: list[Event] = field(default_factory=list)
    metrics: list[tuple[str, int, float | None, datetime]] = field(
        default_factory=list
    )  # name, step, value, at
    log: str = ""
    phase: str | None = None
    progress: Progress | None = None
    latest: Mapping[str, float | None] | None = None
    memory: Memory | None = None
    inputs: Mapping[str, Input] | None = None
    checkpoints: list[NewArtifact] = field(default_factory=list)  # whose weights were published

    @property
    def columns(self) -> dict[str, Any]:
        """The row's columns that change."""
        names = ("phase", "progress", "latest", "memory", "inputs")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def __bool__(self) -> bool:
        return bool(self.events or self.metrics or self.log or self.checkpoints or self.columns)


class ProgressStore:
    def __init__(self, database: Database, max_log_bytes: int = 4_194_304) -> None:
        self._database = database
        self._max_log_bytes = max_log_bytes

    def record(self, claim: Claim, update: ProgressUpdate) -> Requests:
        """Writes all of it or nothing, under the lease. Raises `StaleLease`, and `NotHeld` for weights of a
        checkpoint whose files are not held."""
        with self._database.write() as session:
            row = session.execute(
                sql_update(Job)
                .where(Job.id == claim.job_id, Job.state == JobState.RUNNING, Job.lease_token == claim.token)
                .values(
                    event_seq=Job.event_seq + len(update.events),
                    log_seq=Job.log_seq + (1 if update.log else 0),
                    **update.columns,
                )
                .returning(
                    Job.event_seq,
                    Job.log_seq,
                    Job.cancel_requested,
                    Job.pause_requested,
                    Job.pipeline_id,
                )
            ).one_or_none()
            if row is None:
                raise StaleLease(f"Job {claim.job_id}: the lease of attempt {claim.attempt} is lost")
            event_seq, log_seq, cancel, pause, pipeline_id = row
            if update.inputs is not None:
                note_inputs(self._database, session, claim.job_id, update.inputs)
            before = event_seq - len(update.events)
            self._insert(session, claim, update, before, log_seq)
            if update.checkpoints:  # after the metrics, which say which of them is the best
                add_checkpoints(self._database, session, claim.job_id, update.checkpoints)
            if update.events:
                seqs = range(before + 1, event_seq + 1)
                note_events(self._database, session, pipeline_id, claim.job_id, seqs, states_changed=False)
        return Requests(cancel, pause)

    def _insert(
        self, session: Session, claim: Claim, update: ProgressUpdate, last_seq: int, log_seq: int
    ) -> None:
        if update.events:
            rows: list[dict[str, Any]] = [
                {
                    "job_id": claim.job_id,
                    "seq": seq,
                    "attempt": claim.attempt,
                    "type": event.type.value,
                    "at": event.at,
                    "data": event.data.model_dump(mode="json"),
                }
                for seq, event in enumerate(update.events, last_seq + 1)
            ]
            session.execute(insert(EventRow), rows)
        if update.metrics:
            # The last one wins within a batch too: one statement may not touch a row twice.
            points = {(name, step): (value, at) for name, step, value, at in update.metrics}
            values: list[dict[str, Any]] = [
                {"job_id": claim.job_id, "name": name, "step": step, "value": value, "at": at}
                for (name, step), (value, at) in points.items()
            ]
            # Many rows a statement: see `_prepare_postgres`. SQLAlchemy does so by itself for plain INSERTs.
            for begin in range(0, len(values), _ROWS_AT_ONCE):
                statement = self._database.insert(Metric).values(values[begin : begin + _ROWS_AT_ONCE])
                session.execute(
                    statement.on_conflict_do_update(
                        index_elements=["job_id", "name", "step"],
                        set_={"value": statement.excluded.value, "at": statement.excluded.at},
                    )
                )
        if update.log:
            content = update.log.replace("\x00", "\ufffd")
            size = len(content.encode())
            session.execute(
                insert(LogChunk).values(
                    job_id=claim.job_id, seq=log_seq, attempt=claim.attempt, content=content, bytes=size
                )
            )
            if log_seq % 32 == 0:
                self._trim_log(session, claim.job_id)

    def _trim_log(self, session: Session, job_id: str) -> None:
        newer = func.sum(LogChunk.bytes).over(order_by=LogChunk.seq.desc())
        ranked = select(LogChunk.seq, newer.label("kept")).where(LogChunk.job_id == job_id).subquery()
        cut = session.scalar(select(func.max(ranked.c.seq)).where(ranked.c.kept > self._max_log_bytes))
        if cut is not None:
            session.execute(delete(LogChunk).where(LogChunk.job_id == job_id, LogChunk.seq <= cut))

    # -- reading ---------------------------------------------------------------------------------

    def events(
        self, job_id: str, after: int = 0, limit: int = 500, types: Collection[EventType] = ()
    ) -> list[EventView]:
        """The events with a number above ``after``, oldest first. ``types``: only of these."""
        columns = EventRow.seq, EventRow.attempt, EventRow.type, EventRow.at, EventRow.data
        query = select(*columns).where(EventRow.job_id == job_id, EventRow.seq > after)
        if types:
            query = query.where(EventRow.type.in_(types))
        with self._database.read() as session:
            rows = session.execute(query.order_by(EventRow.seq).limit(limit)).mappings()
            return [EventView.model_validate(dict(row)) for row in rows]

    def metric_names(self, job_id: str) -> list[str]:
        with self._database.read() as session:
            return list(
                session.scalars(
                    select(Metric.name).where(Metric.job_id == job_id).distinct().order_by("name")
                )
            )

    def metric(self, job_id: str, name: str) -> list[tuple[int, float | None, datetime]]:
        """(step, value, time) by step."""
        query = select(Metric.step, Metric.value, Metric.at).where(
            Metric.job_id == job_id, Metric.name == name
        )
        with self._database.read() as session:
            return [(step, value, at) for step, value, at in session.execute(query.order_by(Metric.step))]

    def log(self, job_id: str, after: int = 0) -> list[LogChunk]:
        """Log chunks with a number above ``after``, oldest first."""
        query = select(LogChunk).where(LogChunk.job_id == job_id, LogChunk.seq > after).order_by(LogChunk.seq)
        with self._database.read() as session:
            return list(session.scalars(query))
