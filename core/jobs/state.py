"""The states of a job and the moves between them. Only `core/store/moves.py` writes one."""

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
    JobState.FAILED: frozenset({JobState.QUEUED}),
    JobState.CANCELLED: frozenset({JobState.QUEUED}),
}


def can_move(source: JobState, target: JobState) -> bool:
    """Whether the move is one of the lines above."""
    return target in MOVES[source]
