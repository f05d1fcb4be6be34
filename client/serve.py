"""``reason serve``: API and worker as two processes of this machine, kept alive until Ctrl-C."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

_PROGRAM = [sys.executable, "-m"]
_RESTARTS = 5
_WITHIN_SECONDS = 60.0


class Service:
    """The processes of one laptop. They get sessions of their own, so that Ctrl-C reaches us alone; if we are
    killed, they end all the same."""

    def __init__(
        self, host: str, port: int, environment: dict[str, str] | None = None, log: Path | None = None
    ) -> None:
        self._commands = {
            "api": [*_PROGRAM, "api", "--end-with-parent", "--host", host, "--port", str(port)],
            "worker": [*_PROGRAM, "worker", "--end-with-parent"],
        }
        self._environment = {**os.environ, **(environment or {})}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._starts: dict[str, list[float]] = {name: [] for name in self._commands}
        self.host, self.port = host, port
        self._log = log  # None: our own terminal

    def prepare(self) -> str | None:
        """Migrates the database. Returns a sentence when the service cannot start."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((self.host, self.port))
            except OSError as error:
                return (
                    f"cannot listen on {self.host}:{self.port} ({error.strerror}). Another `reason serve` "
                    "may be running: use it, stop it, or give another --port."
                )
        migrated = subprocess.run(
            [sys.executable, "-m", "migrations"],
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if migrated.returncode:
            return (
                migrated.stderr.strip().splitlines()[-1]
                if migrated.stderr
                else "the database schema cannot be upgraded"
            )
        return None

    def start(self) -> None:
        for name in self._commands:
            self._start(name)

    def _start(self, name: str) -> None:
        self._starts[name].append(time.monotonic())
        with self._log.open("ab") if self._log else contextlib.nullcontext() as output:
            self._processes[name] = subprocess.Popen(
                self._commands[name],
                env=self._environment,
                start_new_session=True,
                stdout=output,
                stderr=subprocess.STDOUT if output else None,
            )

    def keep_alive(self) -> str | None:
        """Starts again what has died. Returns a sentence when it dies again and again."""
        for name, process in list(self._processes.items()):
            code = process.poll()
            if code is None:
                continue
            recent = [moment for moment in self._starts[name] if time.monotonic() - moment < _WITHIN_SECONDS]
            if code == 2 or len(recent) >= _RESTARTS:
                return f"the {name} ended with exit code {code}"
            print(f"reason: the {name} ended with exit code {code} and is restarted", file=sys.stderr)
            self._start(name)
        return None

    def stop(self) -> None:
        """Asks both to end; jobs save a checkpoint. Waits for them. A Ctrl-C meanwhile kills them."""
        for process in self._processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        try:
            for process in self._processes.values():
                process.wait()
        except KeyboardInterrupt:
            self.kill()
            raise

    def kill(self) -> None:
        for process in self._processes.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def serve(host: str, port: int) -> int:
    """Blocks until Ctrl-C or SIGTERM. A second Ctrl-C does not wait for checkpoints."""
    service = Service(host, port)
    if problem := service.prepare():
        print(f"reason: {problem}", file=sys.stderr)
        return 2
    asked: list[int] = []

    def ask(number: int, _frame: FrameType | None) -> None:
        asked.append(number)
        if len(asked) > 1:
            service.kill()

    for number in (signal.SIGINT, *_ending()):
        signal.signal(number, ask)
    service.start()
    print(
        f"reason: API on http://{host}:{port} (dashboard; the API at /docs). Ctrl-C stops the service.",
        file=sys.stderr,
    )
    failure = None
    while not asked and failure is None:
        time.sleep(0.2)
        failure = service.keep_alive()
    if asked:
        print(
            "reason: stopping; running jobs save a checkpoint (press Ctrl-C again to stop without waiting)",
            file=sys.stderr,
        )
    service.stop()
    if failure and not asked:
        print(f"reason: {failure}", file=sys.stderr)
        return 1
    return 0


def _ending() -> list[signal.Signals]:
    """What asks a program to end beside Ctrl-C: a service manager, and a terminal that is closed, unless
    ``nohup`` has it ignored."""
    return [
        number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is not signal.SIG_IGN
    ]


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Within the block these signals do what Ctrl-C does, so that what was begun is ended in order."""

    def interrupt(number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    before = {number: signal.signal(number, interrupt) for number in _ending()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
