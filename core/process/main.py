"""The job's process: what the fork server runs, and ``python -m core.process`` without one."""

import logging
import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path

from core.data.sources.inputs import make_context
from core.jobs.protocol import EVENTS, LOG, REQUEST, RunRequest
from core.process.attempt import run_attempt
from core.process.log import RunLog
from core.process.supervision import Supervision
from core.runtime.context import RunContext, StopSignal
from core.runtime.reporter import JsonlReporter


def main(folder: str, control: Connection | None = None) -> None:
    """Run the request that lies in ``folder``.

    ``control`` is this process's end of the pipe to its supervisor: see `core.process.supervision`.
    """
    run_dir = Path(folder)
    os.setsid()  # a group of its own, so that it can be killed with its data loaders
    log = RunLog(run_dir / LOG)
    log.redirect()
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
    context = make_context(request, run_dir, JsonlReporter(run_dir / EVENTS), stop)
    if control is None:
        run_attempt(context)
        return
    supervision = Supervision(control, stop, request.lease_seconds, lambda: _keep_log(log, context))
    supervision.start()
    run_attempt(context, supervision.send)


def _keep_log(log: RunLog, context: RunContext) -> None:
    if log.restore():
        context.notice(f"{LOG} was deleted while the job ran: lines of its log are lost.", "warning")


def see_first_gpu(gpus: list[str]) -> None:
    """From here on this process sees that device alone, or none; before anything initialises CUDA.

    Each further one is a helper's (`core.engine.ranks`).
    """
    os.environ["CUDA_VISIBLE_DEVICES"] = gpus[0] if gpus else ""


def _forget_credentials() -> None:
    """The worker's way to the database and the broker is not for models' code and experiment trackers."""
    for name in [name for name in os.environ if name.startswith(("REASON_", "PG"))]:
        del os.environ[name]
