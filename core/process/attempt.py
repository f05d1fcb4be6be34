"""One attempt of a job inside its process: do it, and write down how it ended."""

import logging
import os
from collections.abc import Callable

from core.artifacts.folders import write_atomically
from core.errors import ReasonError
from core.jobs.protocol import RESULT, RunResult
from core.jobs.reasons import EndReason
from core.native_errors import first_line
from core.process.dispatch import run_job
from core.process.memory import MemorySampler
from core.runtime.context import RunContext, Stopped
from core.runtime.failures import end_of, result_of

_log = logging.getLogger(__name__)


def run_attempt(context: RunContext, send: Callable[[str], None] | None = None) -> RunResult:
    """Run the job and write ``result.json``. Raises nothing: every end is a result.

    Where ``result.json`` cannot be written (disk full, folder deleted), ``send`` gets the result instead.
    """
    reason, message = _run(context)
    context.release()
    result = result_of(context, reason, message)
    try:
        write_atomically(context.folder / RESULT, result.model_dump_json(indent=2))
    except OSError as error:
        if reason is EndReason.SUCCEEDED:
            reason = EndReason.STORAGE_FAILED
            message = (
                f"{RESULT} cannot be written to {context.folder}: {first_line(error)}. The outputs were "
                "published; the next attempt continues from the last checkpoint."
            )
            result = result_of(context, reason, message)
        _log.error("%s cannot be written: %s", RESULT, error)
        if send is not None:
            send(result.model_dump_json())
    return result


def _run(context: RunContext) -> tuple[EndReason, str]:
    reason, message = EndReason.SUCCEEDED, EndReason.SUCCEEDED.sentence
    quiet_libraries()
    try:
        context.phase("starting")
        with MemorySampler(context):
            context.release()  # what an attempt that was killed has left
            run_job(context)
        if context.stop.failure is not None:
            raise context.stop.failure
    except (Stopped, Exception) as error:  # noqa: BLE001 - the attempt's own edge: every end must be told
        reason, message = end_of(error, context)
        message = context.by_reference(message)
        # By the logger and not by `traceback.print_exc`: a log on a full disk must not hide the end.
        if not isinstance(error, Stopped | ReasonError):
            _log.error("The job ended by an error", exc_info=error)
        elif error.__cause__ is not None:
            _log.info("What led to the end", exc_info=error)  # seen in the job's log, not on a console
    _log.info("%s: %s", reason.value, message)  # for the log; a console is told by who runs it
    return reason, message


def quiet_libraries() -> None:
    """Libraries' progress bars stay out of the job's log; their warnings stay in."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # kernels that it would like to have
