"""What an end reason says of a process that a signal has ended."""

import signal

import pytest

from core.engine.ranks import _failure_of
from core.jobs.reasons import describe_signal
from core.runtime.context import Seat
from worker.supervisor import _describe


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (signal.SIGKILL, "was killed by SIGKILL. The usual cause is too little memory."),
        (signal.SIGABRT, "was ended by SIGABRT: a library aborted it; see the log."),
        (signal.SIGSEGV, "was ended by SIGSEGV; see the log."),
        (signal.SIGRTMIN + 1, f"was ended by signal {signal.SIGRTMIN + 1}; see the log."),
    ],
)
def test_only_a_kill_is_put_down_to_memory(number, said, tmp_path):
    assert describe_signal(number) == said
    assert _describe(-number) == said
    failure = _failure_of(2, -number, Seat(0, tmp_path / "meeting"))
    assert str(failure) == f"Process 3 of the job {said}"
    assert failure.code == "process_died"
