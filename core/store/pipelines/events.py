"""One numbering of the events of a pipeline's jobs, and the pipeline's own state, which follows from theirs.

Both are written at the very end of a transaction: the row of the pipeline is locked after all rows of jobs,
by everybody, so that no two transactions wait for each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from core.jobs.state import JobState, pipeline_state
from core.store.schema.database import Database, at_commit
from core.store.schema.tables import Job, Pipeline, PipelineEvent
from core.store.webhooks import note_change, pipeline_data


@dataclass
class _Noted:
    """What a transaction has written for the jobs of one pipeline."""

    events: list[tuple[str, int]] = field(default_factory=list)  # id of a job, number of its event
    states_changed: bool = False


def note_events(
    database: Database,
    session: Session,
    pipeline_id: str | None,
    job_id: str,
    seqs: Sequence[int],
    *,
    states_changed: bool,
) -> None:
    """Remember events of a job until the transaction ends. Does nothing for a job without a pipeline."""
    if pipeline_id is None:
        return
    noted: dict[str, _Noted] = session.info.setdefault("pipelines", {})
    if not noted:
        at_commit(session, lambda: _write(database, session, noted))
    of_pipeline = noted.setdefault(pipeline_id, _Noted())
    of_pipeline.events += [(job_id, seq) for seq in seqs]
    of_pipeline.states_changed |= states_changed


def _write(database: Database, session: Session, noted: dict[str, _Noted]) -> None:
    session.flush()
    for pipeline_id in sorted(noted):
        of_pipeline = noted[pipeline_id]
        last = session.scalar(
            update(Pipeline)
            .where(Pipeline.id == pipeline_id)
            .values(event_seq=Pipeline.event_seq + len(of_pipeline.events))
            .returning(Pipeline.event_seq)
        )
        assert last is not None, "a job's pipeline is never deleted before the job"
        first = last - len(of_pipeline.events) + 1
        rows = [
            {"pipeline_id": pipeline_id, "seq": seq, "job_id": job_id, "job_seq": job_seq}
            for seq, (job_id, job_seq) in enumerate(of_pipeline.events, first)
        ]
        session.execute(insert(PipelineEvent), rows)
        if of_pipeline.states_changed:
            _write_state(database, session, pipeline_id)


def _write_state(database: Database, session: Session, pipeline_id: str) -> None:
    rows = session.execute(select(Job.state, Job.attempt).where(Job.pipeline_id == pipeline_id)).all()
    state = pipeline_state([JobState(row.state) for row in rows], started=any(row.attempt for row in rows))
    changed = session.scalar(
        update(Pipeline)
        .where(Pipeline.id == pipeline_id, Pipeline.state != state.value)
        .values(state=state.value, finished_at=database.time() if state.final else None)
        .returning(Pipeline)
        .execution_options(populate_existing=True)
    )
    if changed is not None:
        note_change(database, session, changed, changed.event_seq, pipeline_data(changed))
        session.flush()
