"""The job process's side of its supervisor: the control pipe, heartbeats, and the end of an orphan.

The supervisor sends text: `HEARTBEAT` whenever the lease was renewed; any other word asks to stop. The
process sends one message back, its result, where ``result.json`` cannot be written.
"""

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

from core.jobs.control import HEARTBEAT
from core.jobs.protocol import EndReasonRecord, RunResult
from core.jobs.reasons import EndReason
from core.runtime.context import StopSignal

_log = logging.getLogger(__name__)
_TICK = 1.0


class Silence:
    """How long nothing was heard while this process could have heard it.

    Of the time between two ticks at most two ticks count. So a process that was stopped (SIGSTOP, a
    suspended machine, a frozen container), or whose listening thread was starved, does not end itself when it
    goes on: its supervisor may have been stopped together with it, and gets the same time again.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._at = clock()
        self.seconds = 0.0

    def heard(self) -> None:
        self._at, self.seconds = self._clock(), 0.0

    def tick(self) -> None:
        """Count the time since the last call."""
        now = self._clock()
        self.seconds += min(now - self._at, 2 * _TICK)
        self._at = now


class Supervision:
    """A thread that listens to the supervisor, and ends the process where that is gone or silent too long."""

    def __init__(
        self,
        control: Connection,
        stop: StopSignal,
        lease_seconds: float | None,
        each_tick: Callable[[], None] = lambda: None,
    ) -> None:
        self._control, self._stop, self._lease = control, stop, lease_seconds
        self._each_tick = each_tick
        self._sending = threading.Lock()

    def start(self) -> None:
        threading.Thread(target=self._listen, name="control", daemon=True).start()

    def send(self, text: str) -> None:
        """Send the result to the supervisor; nothing where that is gone."""
        with self._sending, contextlib.suppress(OSError):
            self._control.send(text)

    def _listen(self) -> None:
        silence = Silence()
        while True:
            word = self._receive()
            if word is None:
                silence.tick()
            else:  # what has arrived counts, however late this thread gets to it
                silence.heard()
            if word is not None and word != HEARTBEAT:
                self._stop.request(word)
            self._each_tick()
            if self._lease is not None and silence.seconds > self._lease:
                self._give_up(silence.seconds)

    def _receive(self) -> str | None:
        """Wait a tick for a word. The end of the pipe means that the supervisor is dead: the process ends."""
        try:
            return str(self._control.recv()) if self._control.poll(_TICK) else None
        except (EOFError, OSError):
            kill_own_group()
            raise

    def _give_up(self, seconds: float) -> None:
        message = (
            f"The job's process had no heartbeat from its worker for {seconds:.0f} s, longer than its lease "
            f"of {self._lease:g} s (REASON_LEASE_SECONDS), and ended itself: another worker may have the "
            "job."
        )
        _log.error("%s", message)
        reason = EndReason.WORKER_LOST
        record = EndReasonRecord(code=reason.value, message=message)
        self.send(RunResult(state=reason.state.value, end_reason=record).model_dump_json())
        kill_own_group()


def kill_own_group() -> None:
    """End this process with its data loaders, at once."""
    os.killpg(os.getpgid(0), signal.SIGKILL)
