"""A real service for tests: API and worker as processes of their own, that can be killed."""

import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from client.client import Client
from core.jobs.views import JobView

ROOT = Path(__file__).parent.parent.parent

OUTLASTS_A_LEASE = {"epochs": 16}
"""Changes of ``long_spec``: a process whose worker is frozen must not be done before its lease is over."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(condition: Callable[[], Any], seconds: float = 240, what: str = "") -> Any:
    """Polls until the condition holds. The limit is for a broken service, not for a slow one."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"this did not happen within {seconds:g} s: {what}")


class Service:
    """Starts and kills the processes; its client outlives them."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.port = free_port()
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("REASON_")},
            "REASON_DATA_DIR": str(folder / "data"),
            "REASON_ALLOWED_PATHS": "/",
            "REASON_LEASE_SECONDS": "3",
            "REASON_RETRY_BASE_SECONDS": "0.2",
            "REASON_SWEEP_SECONDS": "0.3",
            "REASON_OFFLINE": "true",
            # Two cores are shared by everything here.
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
            **{f"REASON_{name.upper()}": str(value) for name, value in settings.items()},
        }
        self.processes: dict[str, subprocess.Popen] = {}
        self.client = Client(f"http://127.0.0.1:{self.port}", retries=8)

    def start(self, *names: str) -> "Service":
        if not self.processes:
            subprocess.run(
                [sys.executable, "-m", "migrations"], env=self.environment, cwd=self.folder, check=True
            )
        for name in names or ("api", "worker"):
            arguments = ["--port", str(self.port)] if name == "api" else []
            log = (self.folder / f"{name}.log").open("ab")
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", name.partition("-")[0], *arguments],
                env=self.environment,
                cwd=self.folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        process = self.processes.pop(name)
        process.send_signal(number)
        process.wait(60)

    def freeze(self, name: str, job_id: str) -> None:
        """SIGSTOP to a worker that runs the job, while it does not hold SQLite's write lock.

        Else nobody could write (docs/jobs.md). The lock is kept from the worker until it has stopped: the
        signal arrives later than it is sent. Nothing is written meanwhile, so the job is seen as the stopped
        worker leaves it.
        """
        with contextlib.closing(
            sqlite3.connect(self.database, timeout=60, isolation_level=None)
        ) as connection:
            connection.execute("BEGIN IMMEDIATE")
            self.freeze_anywhere(name)
            found = connection.execute("SELECT state, attempt FROM jobs WHERE id = ?", [job_id]).fetchone()
            connection.execute("ROLLBACK")
        assert found == ("running", 1), f"too late to freeze its worker: {found}\n{self.logs()}"

    def freeze_anywhere(self, name: str) -> None:
        """SIGSTOP, wherever the process is just now. Returns when all its threads have stopped."""
        process = self.processes[name]
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)

    @property
    def database(self) -> Path:
        """SQLite's file."""
        return Path(self.environment["REASON_DATA_DIR"]) / "reason.db"

    def reasons(self, job_id: str) -> list[str]:
        """Why the attempts so far have ended, the oldest first."""
        changes = [event.data for event in self.client.events(job_id) if event.type == "state"]
        return [change.reason for change in changes if change.reason]

    def notices(self, job_id: str) -> list[str]:
        return [event.data.message for event in self.client.events(job_id) if event.type == "notice"]

    def run_folder(self, job_id: str, attempt: int = 1) -> Path:
        return Path(self.environment["REASON_DATA_DIR"]) / "runs" / job_id / f"attempt-{attempt}"

    def job_process(self, job_id: str) -> psutil.Process:
        """The process that runs the job: it writes the log, which the worker reads."""
        return until(lambda: self._find(job_id), what="the job's process")

    def _find(self, job_id: str) -> psutil.Process | None:
        workers = {process.pid for process in self.processes.values()}
        for process in psutil.process_iter():
            try:
                if process.pid not in workers and any(job_id in file.path for file in process.open_files()):
                    return process
            except psutil.Error:
                continue
        return None

    def wait_for_step(self, job_id: str, step: int) -> JobView:
        def reached() -> JobView | None:
            job = self.client.job(job_id)
            assert not job.state.final, job.end_reason
            return job if job.progress.step >= step else None

        return until(reached, what=f"step {step}")

    def wait(self, job_id: str, seconds: float = 240) -> JobView:
        try:
            return self.client.wait(job_id, timeout=seconds, poll_seconds=0.1)
        except TimeoutError as error:
            raise AssertionError(f"{error}\n{self.logs()}") from error

    def logs(self) -> str:
        return "\n".join(
            f"--- {path.name}\n{path.read_text(errors='replace')[-4000:]}"
            for path in self.folder.glob("*.log")
        )

    def stop(self) -> None:
        self.client.close()
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
        left = [process for process in psutil.process_iter() if self._ours(process)]
        for process in left:
            process.kill()

    def _ours(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get("REASON_DATA_DIR") == self.environment["REASON_DATA_DIR"]
        except psutil.Error:
            return False
