"""The pipe between a worker and a job's process, from both ends, with real processes."""

import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from types import SimpleNamespace

import pytest

from core.errors import Unavailable
from core.jobs.control import HEARTBEAT
from core.jobs.protocol import RunResult
from core.process.supervision import Silence, Supervision
from core.runtime.context import StopSignal
from core.store.attempts.leases import Requests
from worker.control import Control
from worker.supervisor import Lease

_CONTEXT = multiprocessing.get_context("fork")


@pytest.fixture
def pipe() -> Iterator[tuple[Control, Connection]]:
    ours, theirs = _CONTEXT.Pipe(duplex=True)
    control = Control(ours)
    yield control, theirs
    control.close()
    theirs.close()


def test_words_and_results_go_through(pipe):
    control, theirs = pipe
    control.beat()
    assert control.ask("cancel")
    assert [theirs.recv(), theirs.recv()] == [HEARTBEAT, "cancel"]
    assert control.result() is None
    end = {"code": "out_of_memory", "message": "no room"}
    theirs.send(json.dumps({"state": "failed", "end_reason": end}))
    assert control.result() == RunResult(state="failed", end_reason=end)


def test_a_process_that_reads_nothing_does_not_hold_its_supervisor(pipe):
    control, theirs = pipe
    for _ in range(100_000):
        control.beat()
    assert not control.ask("cancel")  # the pipe is full: the supervisor asks again
    while theirs.poll():
        theirs.recv()
    assert control.ask("cancel")
    assert theirs.recv() == "cancel"


def test_a_process_that_has_ended_is_no_error(pipe):
    control, theirs = pipe
    theirs.close()
    control.beat()
    assert control.ask("cancel")
    assert control.result() is None


def job(control: Connection, lease_seconds: float) -> None:
    """A job's process that does nothing but listen."""
    os.setsid()
    Supervision(control, StopSignal(), lease_seconds).start()
    threading.Event().wait()


@pytest.fixture
def start(pipe):
    started = []

    def run(lease_seconds: float) -> tuple[Control, multiprocessing.Process]:
        control, theirs = pipe
        process = _CONTEXT.Process(target=job, args=(theirs, lease_seconds), daemon=True)
        process.start()
        started.append(process)
        return control, process

    yield run
    for process in started:
        process.kill()
        process.join()


def test_a_process_without_heartbeats_ends_itself_and_says_why(start):
    control, process = start(1.0)
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    result = control.result()
    assert result.end_reason.code == "worker_lost"
    assert "no heartbeat from its worker" in result.end_reason.message


def test_a_process_that_was_stopped_itself_goes_on(start):
    """The heartbeats that have arrived meanwhile count."""
    control, process = start(2.0)
    control.beat()
    os.kill(process.pid, signal.SIGSTOP)
    for _ in range(30):
        control.beat()
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGCONT)
    for _ in range(30):
        control.beat()
        time.sleep(0.1)
    assert process.is_alive()


def test_time_in_which_the_process_did_not_run_does_not_count():
    """A suspended machine: supervisor and process go on at the same moment, in any order."""
    times = iter([0.0, 1.0, 2.0, 3.0, 3600.0, 3600.0, 3601.0])
    silence = Silence(clock=lambda: next(times))
    for _ in range(3):
        silence.tick()
    assert silence.seconds == 3.0
    silence.tick()
    assert silence.seconds == 5.0
    silence.heard()
    silence.tick()
    assert silence.seconds == 1.0


class Leases:
    """Renews as often as ``answers`` says; the rest of the store is not needed."""

    def __init__(self, *answers: BaseException | None) -> None:
        self._answers = iter(answers)

    def renew(self, *_: object) -> Requests:
        answer = next(self._answers, None)
        if answer is not None:
            raise answer
        return Requests()


def test_a_heartbeat_is_sent_for_every_renewal_and_for_no_failure():
    beaten = []
    lease = Lease(Leases(Unavailable("away"), Unavailable("away")), SimpleNamespace(job_id="job"), 1.2)
    enough = threading.Event()
    lease.on_renewed = lambda: (beaten.append(1), enough.set())
    with lease:
        assert enough.wait(60)
    assert not lease.lost.is_set()


def test_an_unexpected_error_of_the_database_does_not_end_the_renewals(caplog):
    lease = Lease(Leases(RuntimeError("a fault of ours")), SimpleNamespace(job_id="job"), 1.2)
    renewed = threading.Event()
    lease.on_renewed = renewed.set
    with lease:
        assert renewed.wait(60)
    assert "a fault of ours" in caplog.text


def test_a_database_that_stays_away_loses_the_lease(caplog):
    lease = Lease(Leases(*[RuntimeError("gone")] * 10_000), SimpleNamespace(job_id="job"), 0.6)
    with lease:
        assert lease.lost.wait(60)
