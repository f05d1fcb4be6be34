"""The worker's end of the pipe to a job's process: stop requests and heartbeats out, a result in."""

import contextlib
import select
import threading
from multiprocessing.connection import Connection

from core.jobs.control import HEARTBEAT
from core.jobs.protocol import RunResult


class Control:
    """Sends words from any thread and never waits for the process, which may be stopped or busy."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def ask(self, word: str) -> bool:
        """Ask the process to stop. Returns whether the word was sent; False where the pipe is full."""
        return self._send(word)

    def beat(self) -> None:
        """Tell the process that its lease was renewed. Left out where earlier heartbeats wait unread."""
        self._send(HEARTBEAT)

    def _send(self, word: str) -> bool:
        with self._lock:
            if self._connection.closed:
                return False
            writable = select.poll()
            writable.register(self._connection, select.POLLOUT)
            if not writable.poll(0):
                return False
            with contextlib.suppress(OSError):  # the process may have ended in this very moment
                self._connection.send(word)
            return True

    def result(self) -> RunResult | None:
        """Return the result that the process sent where it could not write ``result.json``, or None."""
        with self._lock, contextlib.suppress(EOFError, OSError):
            if self._connection.poll():
                return RunResult.model_validate_json(self._connection.recv())
        return None

    def close(self) -> None:
        with self._lock:
            self._connection.close()
