"""One attempt of a job inside its process: do it, and write down how it ended."""

import errno
import logging
import os
import traceback

from core.artifacts.folders import write_atomically
from core.errors import InvalidRequest, JobFailure
from core.jobs.reasons import EndReason
from core.run.context import RunContext, Stopped
from core.run.dispatch import run_job
from core.run.memory import MemorySampler
from core.run.request import RESULT, EndReasonRecord, RunResult

_log = logging.getLogger(__name__)

_STOPS = {"cancel": EndReason.CANCELLED, "pause": EndReason.PAUSED}


def run_attempt(context: RunContext) -> RunResult:
    """Runs the job and writes ``result.json``. Raises nothing: every end is a result."""
    reason, message = EndReason.SUCCEEDED, EndReason.SUCCEEDED.sentence
    context.phase("starting")
    quiet_libraries()
    with MemorySampler(context):
        try:
            context.release()  # what an attempt that was killed has left
            run_job(context)
        except Stopped:
            reason = _STOPS.get(context.stop.why, EndReason.INTERRUPTED)
            message = reason.sentence
        except JobFailure as error:
            reason, message = EndReason.of(error.code), str(error)
        except InvalidRequest as error:
            reason, message = EndReason.BAD_SPEC, str(error)
        except MemoryError:
            reason, message = EndReason.OUT_OF_MEMORY, "The machine ran out of memory."
        except Exception as error:  # noqa: BLE001 - the attempt's own edge: every end must be told
            traceback.print_exc()
            reason = EndReason.STORAGE_FAILED if _storage(error) else EndReason.CRASHED
            message = f"{type(error).__name__}: {str(error).strip() or 'no message'}"
    context.release()
    succeeded = reason is EndReason.SUCCEEDED
    _log.info("%s: %s", reason.value, message)  # for the log; a console is told by who runs it
    result = RunResult(
        state=reason.state.value,
        end_reason=EndReasonRecord(code=reason.value, message=message),
        outputs=context.outputs if succeeded else {},
        metrics=context.metrics,
    )
    write_atomically(context.folder / RESULT, result.model_dump_json(indent=2))
    return result


def _storage(error: BaseException) -> bool:
    """Whether a full disk or storage that went away is behind an error."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)


def quiet_libraries() -> None:
    """Libraries' progress bars stay out of the job's log; their warnings stay in."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # kernels that it would like to have
