"""Why an attempt ended by an exception, as an end reason and a message."""

from pathlib import Path

from core.artifacts.folders import write_atomically
from core.errors import BadData, BadModel, InvalidRequest, JobFailure, StorageFailure
from core.jobs.protocol import RESULT, EndReasonRecord, RunResult
from core.jobs.reasons import EndReason
from core.native_errors import explain, first_line, inaccessible_path
from core.runtime.context import RunContext, Stopped
from core.spec.parts.refs import parse_ref
from core.spec.stored import read_stored_spec

_STOPS = {"cancel": EndReason.CANCELLED, "pause": EndReason.PAUSED, "storage": EndReason.STORAGE_FAILED}


def end_of(error: BaseException, context: RunContext) -> tuple[EndReason, str]:
    """Return the end reason and the message for what a job has raised."""
    if isinstance(error, Stopped):
        if context.stop.failure is not None:
            return _of_failure(context.stop.failure)
        reason = _STOPS.get(context.stop.why, EndReason.INTERRUPTED)
        return reason, reason.sentence
    if isinstance(error, InvalidRequest):
        return EndReason.BAD_SPEC, str(error)
    failure = explain(error) or _of_missing_file(error, context)
    if failure is not None:
        return _of_failure(failure)
    return EndReason.CRASHED, f"{type(error).__name__}: {str(error).strip() or 'no message'}"


def result_of(context: RunContext, reason: EndReason, message: str) -> RunResult:
    """What ``result.json`` says of the attempt."""
    return RunResult(
        state=reason.state.value,
        end_reason=EndReasonRecord(code=reason.value, message=message),
        outputs=context.outputs if reason is EndReason.SUCCEEDED else {},
        metrics=context.metrics,
        incomplete=context.incomplete,
    )


def write_end(context: RunContext, error: BaseException) -> None:
    """Leave ``result.json`` for an attempt whose main thread can no longer end by itself."""
    result = result_of(context, *end_of(error, context))
    context.notice(result.end_reason.message, "error")
    write_atomically(context.folder / RESULT, result.model_dump_json(indent=2))


def _of_failure(failure: JobFailure) -> tuple[EndReason, str]:
    return EndReason.of(failure.code), str(failure)


def _of_missing_file(error: BaseException, context: RunContext) -> JobFailure | None:
    """Return the failure for a file that vanished under the job, or that the job may not access."""
    own = [context.folder, context.request.checkpoints, context.request.cache]
    if (path := inaccessible_path(error, own)) is not None:
        return StorageFailure(
            f"{path} was removed while the job ran, or the worker may not access it ({first_line(error)}). "
            "Do not change the folders of running jobs."
        )
    stored = read_stored_spec(context.request.spec, context.request.spec_version)
    for found in stored.spec.find_references():
        ref = parse_ref(found.text)
        if ref.scheme != "file" or inaccessible_path(error, [Path(ref.target)]) is None:
            continue
        failure = BadModel if found.role == "model" else BadData
        return failure(
            f"{found.path}: a file of {found.text} is missing or may not be read ({first_line(error)})"
        )
    return None
