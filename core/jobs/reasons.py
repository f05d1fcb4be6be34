"""Why an attempt ended. The state follows from the reason, never the other way round."""

import signal
from enum import StrEnum

from core.jobs.state import JobState


class EndReason(StrEnum):
    """The reason's code, as it goes over the wire."""

    SUCCEEDED = "succeeded"
    CANCELLED = "cancelled"
    DEPENDENCY_FAILED = "dependency_failed"
    PAUSED = "paused"
    INTERRUPTED = "interrupted"
    WORKER_LOST = "worker_lost"
    PROCESS_DIED = "process_died"
    TIMED_OUT = "timed_out"
    BAD_DATA = "bad_data"
    BAD_MODEL = "bad_model"
    BAD_SPEC = "bad_spec"
    OUT_OF_MEMORY = "out_of_memory"
    DIVERGED = "diverged"
    STORAGE_FAILED = "storage_failed"
    CRASHED = "crashed"

    @property
    def state(self) -> JobState:
        """Where the job goes when no retry follows."""
        return _STATES.get(self, JobState.FAILED)

    @property
    def retryable(self) -> bool:
        """Whether the same job may do better next time. Counts against ``max_attempts``."""
        return self in _RETRYABLE

    @property
    def sentence(self) -> str:
        """What to tell the user."""
        return _SENTENCES[self]

    @classmethod
    def of(cls, code: str) -> "EndReason":
        """The reason of a code that another version may have written; unknown ones count as a crash."""
        return next((reason for reason in cls if reason.value == code), cls.CRASHED)


def lost_run_folder(folder: object) -> str:
    """Return the message for a run folder that was deleted under its job. The job and its worker see it."""
    return (
        f"The run folder {folder}, or events.jsonl in it, was deleted, replaced or cut short while the job "
        "ran: its progress can no longer be read. Leave the run folders of running jobs alone."
    )


_STATES = {
    EndReason.SUCCEEDED: JobState.SUCCEEDED,
    EndReason.CANCELLED: JobState.CANCELLED,
    EndReason.DEPENDENCY_FAILED: JobState.CANCELLED,
    EndReason.PAUSED: JobState.PAUSED,
    EndReason.INTERRUPTED: JobState.QUEUED,
}

_RETRYABLE = frozenset(
    {EndReason.WORKER_LOST, EndReason.PROCESS_DIED, EndReason.STORAGE_FAILED, EndReason.CRASHED}
)

_SENTENCES = {
    EndReason.SUCCEEDED: "The job is done.",
    EndReason.CANCELLED: "The job was cancelled.",
    EndReason.DEPENDENCY_FAILED: "A job that this one depends on did not succeed.",
    EndReason.PAUSED: "The job is paused; it goes on from its last checkpoint when resumed.",
    EndReason.INTERRUPTED: "The worker was shut down; the job goes on from its last checkpoint elsewhere.",
    EndReason.WORKER_LOST: "The worker stopped renewing its lease: it died or lost the database.",
    EndReason.PROCESS_DIED: "The job's process was killed: by SIGKILL most often for want of memory.",
    EndReason.TIMED_OUT: "The attempt ran longer than timeout_seconds.",
    EndReason.BAD_DATA: "The data cannot be used as they are.",
    EndReason.BAD_MODEL: "The model cannot be loaded.",
    EndReason.BAD_SPEC: "The job asks for something that does not go together on this machine.",
    EndReason.OUT_OF_MEMORY: "The device has too little memory for this job.",
    EndReason.DIVERGED: "The loss is no longer a number.",
    EndReason.STORAGE_FAILED: "Files could not be read or written: disk full, or storage away.",
    EndReason.CRASHED: "The job's code raised an error that nobody foresaw; see the logs.",
}


def describe_signal(number: int) -> str:
    """What is said after "The process": which signal has ended it, and what that mostly means."""
    if number == signal.SIGKILL:
        return "was killed by SIGKILL, most often for want of memory."
    if number == signal.SIGABRT:
        return "was ended by SIGABRT: a library aborted it, see the log."
    try:
        name = signal.Signals(number).name
    except ValueError:  # a real-time signal
        name = f"signal {number}"
    return f"was ended by {name}: see the log."
