"""The states of a job and the moves between them. Only `core/store/moves.py` writes one."""

from collections.abc import Sequence
from enum import StrEnum


class JobState(StrEnum):
    """The state of a job. Its current activity (preparing, training, ...) is its phase."""

    WAITING = "waiting"  # -> queued when what it depends on succeeded; -> cancelled
    QUEUED = "queued"  # -> running when a worker claims it; -> cancelled
    RUNNING = "running"  # -> any final state, -> paused, -> queued for another attempt
    PAUSED = "paused"  # -> queued on resume, from its last checkpoint; -> cancelled
    SUCCEEDED = "succeeded"  # final
    FAILED = "failed"  # final, until somebody asks to retry: -> queued
    CANCELLED = "cancelled"  # final, until somebody asks to retry: -> queued

    @property
    def final(self) -> bool:
        """Nothing moves it on by itself."""
        return self in _FINAL


_FINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})

MOVES: dict[JobState, frozenset[JobState]] = {
    JobState.WAITING: frozenset({JobState.QUEUED, JobState.CANCELLED}),
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.PAUSED, JobState.CANCELLED}),
    JobState.RUNNING: frozenset(
        {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.PAUSED, JobState.QUEUED}
    ),
    JobState.PAUSED: frozenset({JobState.QUEUED, JobState.CANCELLED}),
    JobState.SUCCEEDED: frozenset(),
    # To waiting: a stage of a pipeline that is tried again, behind another that must succeed first.
    JobState.FAILED: frozenset({JobState.QUEUED, JobState.WAITING}),
    JobState.CANCELLED: frozenset({JobState.QUEUED, JobState.WAITING}),
}


def pipeline_state(states: Sequence[JobState], *, started: bool) -> JobState:
    """The state of a pipeline whose jobs are in these. ``started``: whether any of them has ever run."""
    found = set(states)
    if found == {JobState.SUCCEEDED}:
        return JobState.SUCCEEDED
    if JobState.RUNNING in found:
        return JobState.RUNNING
    if JobState.QUEUED in found:
        return JobState.RUNNING if started else JobState.QUEUED
    for state in (JobState.PAUSED, JobState.WAITING, JobState.FAILED):  # WAITING: for a job outside of it
        if state in found:
            return state
    return JobState.CANCELLED


def can_move(source: JobState, target: JobState) -> bool:
    """Whether the move is one of the lines above."""
    return target in MOVES[source]
