"""The job's process: what the fork server runs, and ``python -m core.run`` without one."""

import logging
import os
import signal
import threading
from multiprocessing.connection import Connection
from pathlib import Path

from core.run.attempt import run_attempt
from core.run.context import RunContext, StopSignal
from core.run.reporter import JsonlReporter
from core.run.request import EVENTS, LOG, REQUEST, RunRequest


def main(folder: str, control: Connection | None = None) -> None:
    """Runs the request that lies in ``folder``.

    ``control`` is the supervisor's end of a pipe: a word on it asks to stop, its closing means that the
    supervisor is dead, and then this process ends itself with all its children.
    """
    run_dir = Path(folder)
    os.setsid()  # a group of its own, so that it can be killed with its data loaders
    _redirect(run_dir / LOG)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    _forget_credentials()
    request = RunRequest.model_validate_json((run_dir / REQUEST).read_bytes())
    see_first_gpu(request.gpus)
    if request.offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    stop = StopSignal()
    signal.signal(signal.SIGTERM, lambda *_: stop.request("terminate"))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the worker, which asks through the pipe
    if control is not None:
        threading.Thread(target=_listen, args=(control, stop), name="control", daemon=True).start()
    run_attempt(RunContext(request, run_dir, JsonlReporter(run_dir / EVENTS), stop))


def see_first_gpu(gpus: list[str]) -> None:
    """From here on this process sees that device alone, or none; before anything initialises CUDA.

    Each further one is a helper's (`core.training.ranks`).
    """
    os.environ["CUDA_VISIBLE_DEVICES"] = gpus[0] if gpus else ""


def _listen(control: Connection, stop: StopSignal) -> None:
    try:
        while True:
            stop.request(str(control.recv()))
    except (EOFError, OSError):
        os.killpg(os.getpgid(0), signal.SIGKILL)


def _forget_credentials() -> None:
    """The worker's way to the database and the broker is not for models' code and experiment trackers."""
    for name in [name for name in os.environ if name.startswith(("REASON_", "PG"))]:
        del os.environ[name]


def _redirect(log: Path) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
