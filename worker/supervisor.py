"""Watches one attempt: renews its lease, passes on stop requests, and says how it ended."""

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess

import psutil

from core.errors import StaleLease, Unavailable
from core.jobs.protocol import Output, RunResult
from core.jobs.reasons import EndReason, describe_signal
from core.jobs.state import JobState
from core.store.attempts.leases import Claim, LeaseStore, Requests
from worker.control import Control
from worker.progress import Crossing

_log = logging.getLogger(__name__)
_TICK = 0.05
_AFTER_SIGTERM = 5.0
_BUS_ERROR = (
    "The job's process ended by signal SIGBUS: a file that it maps into memory was cut short, or the disk or "
    "/dev/shm that holds it is full. Free space there; in a container raise REASON_SHM_SIZE."
)


@dataclass(frozen=True)
class Ended:
    """How an attempt ended, and what it has published."""

    reason: EndReason
    message: str | None = None
    outputs: Mapping[str, Output] = field(default_factory=dict)
    incomplete: bool = False


class Lease:
    """Renews a claim from a thread of its own, so that neither a silent phase nor a slow write loses it.

    ``requests`` is what the user has asked meanwhile; ``lost`` is set when the row is no longer ours, or
    when the database was away for so long that it may not be. ``on_renewed`` is called after each renewal.
    """

    def __init__(self, leases: LeaseStore, claim: Claim, seconds: float) -> None:
        self._leases, self._claim, self._seconds = leases, claim, seconds
        self.requests = Requests()
        self.lost = threading.Event()
        self.on_renewed: Callable[[], None] = lambda: None
        self._done = threading.Event()
        self._renewed = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=f"lease-{claim.job_id}", daemon=True)

    def __enter__(self) -> "Lease":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def note(self, requests: Requests | None) -> None:
        if requests is not None:
            self.requests = requests

    def _run(self) -> None:
        # Often enough that a request to stop is seen within a second, a dozen times a lease at least.
        while not self._done.wait(min(1.0, self._seconds / 12)):
            begun = time.monotonic()
            try:
                self.note(self._leases.renew(self._claim, self._seconds))
                self._renewed = begun  # counted from before the call: a slow answer shortens our share
                self.on_renewed()
            except StaleLease as error:
                _log.warning("%s", error)
                self.lost.set()
                return
            except Unavailable as error:
                _log.warning("Job %s: the lease could not be renewed: %s", self._claim.job_id, error)
            except Exception:  # noqa: BLE001 - a lease must never be lost in silence, whatever the error
                _log.exception("Job %s: the lease could not be renewed", self._claim.job_id)
            # A little early: our process must be gone when another worker takes the job.
            if time.monotonic() - self._renewed > 0.9 * self._seconds:
                self.lost.set()
                return


class Supervisor:
    """One attempt's process, from its start to its `Ended`."""

    def __init__(
        self,
        claim: Claim,
        process: ForkServerProcess,
        control: Control,
        crossing: Crossing,
        lease: Lease,
        *,
        grace_seconds: float,
        shutting_down: Callable[[], bool],
        read_result: Callable[[], RunResult | None],
    ) -> None:
        self._claim, self._process, self._control = claim, process, control
        self._crossing, self._lease = crossing, lease
        self._grace = grace_seconds
        self._shutting_down = shutting_down
        self._read_result = read_result
        self._begun = time.monotonic()
        lease.on_renewed = control.beat
        self._asked: str | None = None
        self._sent = False
        self._asked_at = 0.0

    def watch(self) -> Ended:
        """Blocks until the process is gone. Raises `StaleLease` when the job is no longer ours."""
        try:
            while self._process.is_alive():
                if self._lease.lost.is_set():
                    self._kill(signal.SIGKILL)
                    raise StaleLease(f"Job {self._claim.job_id}: lease lost, its process was ended")
                self._pass_on_requests()
                self._tell()
                self._process.join(_TICK)
            return self._ended()
        finally:
            self._lease.on_renewed = lambda: None
            self._kill(signal.SIGKILL)  # whatever it left behind in its group
            self._process.join(5)
            self._control.close()

    def _tell(self) -> None:
        self._crossing.look()
        if not self._crossing.due():
            return
        try:
            self._lease.note(self._crossing.flush())
        except Unavailable as error:
            _log.warning("Job %s: progress waits: %s", self._claim.job_id, error)

    def _pass_on_requests(self) -> None:
        wanted = self._wanted()
        if wanted and self._asked is None:
            self._asked, self._asked_at = wanted, time.monotonic()
        if self._asked is not None and not self._sent:
            self._sent = self._control.ask(self._asked)
        if self._asked is None:
            return
        waited = time.monotonic() - self._asked_at
        if waited > self._grace + _AFTER_SIGTERM:
            self._kill(signal.SIGKILL)
        elif waited > self._grace:
            self._kill(signal.SIGTERM)

    def _wanted(self) -> str | None:
        timeout = self._claim.timeout_seconds
        if self._crossing.lost:
            return "storage"
        if self._lease.requests.cancel:
            return "cancel"
        if self._lease.requests.pause:
            return "pause"
        if timeout is not None and time.monotonic() - self._begun > timeout:
            return "timeout"
        return "shutdown" if self._shutting_down() else None

    def _ended(self) -> Ended:
        self._crossing.look()
        result = self._read_result() or self._control.result()
        code = self._process.exitcode
        succeeded = result is not None and result.state == JobState.SUCCEEDED
        if self._crossing.lost and not succeeded:
            return Ended(EndReason.STORAGE_FAILED, self._crossing.lost)
        if self._asked == "timeout" and not succeeded:
            return Ended(EndReason.TIMED_OUT)
        if result is not None:
            reason = EndReason.of(result.end_reason.code)
            return Ended(reason, result.end_reason.message, result.outputs, result.incomplete)
        if self._asked is not None:  # it did not manage to save within the grace time
            return Ended(
                {"cancel": EndReason.CANCELLED, "pause": EndReason.PAUSED}.get(
                    self._asked, EndReason.INTERRUPTED
                )
            )
        if code == -signal.SIGBUS:
            return Ended(EndReason.STORAGE_FAILED, _BUS_ERROR)
        return Ended(EndReason.PROCESS_DIED, f"The job's process {_describe(code)}")

    def _kill(self, number: signal.Signals) -> None:
        """The whole group: data loaders must not outlive their job."""
        pid = self._process.pid
        if pid is None:
            return
        try:
            os.killpg(pid, number)
        except ProcessLookupError:
            # Not yet its own group (the first milliseconds), or gone.
            with contextlib.suppress(psutil.NoSuchProcess):
                if self._process.is_alive():
                    psutil.Process(pid).send_signal(number)


def _describe(code: int | None) -> str:
    if code is None or code == 255:
        return "ended without a result."
    if code < 0:
        return describe_signal(-code)
    return f"ended with exit code {code}, without a result."
