"""What every worker does beside its jobs: heartbeat, expired leases, lost wake-ups."""

import contextlib
import logging
import threading
import time

from core.errors import Unavailable
from core.queue.wakeups import Queue
from core.settings import Settings
from core.store import Store
from worker.inventory import read_gpus
from worker.runner import Runner

_log = logging.getLogger(__name__)


class Sweeper:
    """A thread that keeps the queue moving when messages, workers or databases are lost."""

    def __init__(
        self, settings: Settings, store: Store, queue: Queue, runner: Runner, worker_id: str, slots: int
    ) -> None:
        self._settings, self._store, self._queue, self._runner = settings, store, queue, runner
        self._worker, self._slots = worker_id, slots
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)
        self._beaten = 0.0
        self._away = False

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._done.set()
        self._thread.join(5)

    def _run(self) -> None:
        while not self._done.wait(self._settings.sweep_seconds):
            try:
                self.sweep()
                self._away = False
            except Unavailable as error:
                if not self._away:
                    _log.warning("Waiting for the database: %s", error)
                self._away = True
            except Exception:  # noqa: BLE001 - without its sweeper a worker takes back no expired job
                _log.exception("The sweep failed; it is tried again")

    def sweep(self) -> None:
        """Once around. Raises `Unavailable`."""
        if time.monotonic() - self._beaten > 5:
            self._store.workers.heartbeat(self._worker, gpus=read_gpus(), stopping=self._runner.shutting_down)
            self._beaten = time.monotonic()
            if self._settings.heartbeat_file:
                with contextlib.suppress(OSError):  # then the check that reads it fails, as it should
                    self._settings.heartbeat_file.touch()
        for job_id in self._store.leases.expire_leases():
            _log.warning("Job %s: its worker is gone, back to the queue", job_id)
        if self._runner.shutting_down or self._runner.busy >= self._slots:
            return  # a busy worker's wake-ups would only pile up in the broker
        if self._store.leases.claimable(
            self._runner.capacity(), any_gpu_worker=self._runner.any_gpu_worker()
        ):
            self._queue.wake(self._settings.queues[0])
