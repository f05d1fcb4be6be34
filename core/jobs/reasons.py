"""Why an attempt ended. The state follows from the reason, never the other way round."""

import signal
from enum import StrEnum

from core.jobs.state import JobState


class EndReason(StrEnum):
    """The code of the reason, as in the API."""

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
    ENDPOINT_FAILED = "endpoint_failed"
    CRASHED = "crashed"

    @property
    def state(self) -> JobState:
        """The state of the job if no retry follows."""
        return _STATES.get(self, JobState.FAILED)

    @property
    def retryable(self) -> bool:
        """Whether another attempt may succeed. Counts against ``max_attempts``."""
        return self in _RETRYABLE

    @property
    def sentence(self) -> str:
        """The message for the user."""
        return _SENTENCES[self]

    @classmethod
    def of(cls, code: str) -> "EndReason":
        """Return the reason of a stored code. A code that this version does not know counts as a crash."""
        return next((reason for reason in cls if reason.value == code), cls.CRASHED)


def lost_run_folder(folder: object) -> str:
    """Return the message for a run folder that was deleted while its job ran."""
    return (
        f"The run folder {folder}, or events.jsonl in it, was deleted, replaced or cut short while the job "
        "ran. Its progress can no longer be read. Do not change the run folders of running jobs."
    )


_STATES = {
    EndReason.SUCCEEDED: JobState.SUCCEEDED,
    EndReason.CANCELLED: JobState.CANCELLED,
    EndReason.DEPENDENCY_FAILED: JobState.CANCELLED,
    EndReason.PAUSED: JobState.PAUSED,
    EndReason.INTERRUPTED: JobState.QUEUED,
}

_RETRYABLE = frozenset(
    {
        EndReason.WORKER_LOST,
        EndReason.PROCESS_DIED,
        EndReason.STORAGE_FAILED,
        EndReason.ENDPOINT_FAILED,
        EndReason.CRASHED,
    }
)

_SENTENCES = {
    EndReason.SUCCEEDED: "The job succeeded.",
    EndReason.CANCELLED: "The job was cancelled.",
    EndReason.DEPENDENCY_FAILED: "A job that this one depends on did not succeed.",
    EndReason.PAUSED: "The job is paused. When resumed, it continues from its last checkpoint.",
    EndReason.INTERRUPTED: "The worker was shut down; the job continues on another from its checkpoint.",
    EndReason.WORKER_LOST: "The worker stopped renewing its lease: it died, froze, or lost the database.",
    EndReason.PROCESS_DIED: "The job's process was killed. The usual cause of SIGKILL is too little memory.",
    EndReason.TIMED_OUT: "The attempt ran longer than timeout_seconds.",
    EndReason.BAD_DATA: "The data cannot be used.",
    EndReason.BAD_MODEL: "The model cannot be loaded.",
    EndReason.BAD_SPEC: "The job's settings cannot be used together on this machine.",
    EndReason.OUT_OF_MEMORY: "The device has too little memory for this job.",
    EndReason.DIVERGED: "The training diverged: the loss is not a finite number.",
    EndReason.STORAGE_FAILED: "Files could not be read or written: disk full, or storage not reachable.",
    EndReason.ENDPOINT_FAILED: "The endpoint of the language model does not answer.",
    EndReason.CRASHED: "The job's code raised an unexpected error; see the log.",
}


def describe_signal(number: int) -> str:
    """The rest of a sentence that begins with "The process": the signal, and its usual cause."""
    if number == signal.SIGKILL:
        return "was killed by SIGKILL. The usual cause is too little memory."
    if number == signal.SIGABRT:
        return "was ended by SIGABRT: a library aborted it; see the log."
    try:
        name = signal.Signals(number).name
    except ValueError:  # a real-time signal
        name = f"signal {number}"
    return f"was ended by {name}; see the log."
