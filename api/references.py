"""What a spec's references mean, settled when the job is submitted: later changes do not reach it."""

from pathlib import Path
from typing import Any

from core.errors import Conflict, Forbidden, InvalidRequest, NotFound, Problem
from core.jobs.state import JobState
from core.settings import Settings
from core.spec import TrainSpec
from core.spec.refs import Ref, parse_ref
from core.store import Store
from core.store.tables import Artifact


def settle(spec: TrainSpec, store: Store, settings: Settings) -> tuple[dict[str, Any], list[str]]:
    """Checks every reference. Returns (inputs by reference, ids of jobs that must end first).

    Raises `Forbidden` for files outside ALLOWED_PATHS, `NotFound` for what does not exist.
    """
    inputs: dict[str, Any] = {}
    parents: list[str] = []
    for path, text in spec.references().items():
        ref = parse_ref(text)
        match ref.scheme:
            case "file":
                _check_file(ref, path, settings)
            case "job":
                found = _output(ref, store)
                if found is None:
                    parents.append(ref.target)
                else:
                    inputs[text] = describe(found)
            case "model" | "dataset" | "artifact":
                kind = None if ref.scheme == "artifact" else ref.scheme
                inputs[text] = describe(store.artifacts.find(kind, ref.target, ref.revision))
            case "url":
                message = "reading straight from object storage is not available yet"
                raise InvalidRequest(f"{path}: {message}", [Problem(path, message)])
    return inputs, parents


def _output(ref: Ref, store: Store) -> Artifact | None:
    """The artifact that a job has made, or None while it may still make it."""
    job = store.jobs.get(ref.target)
    for artifact in store.artifacts.of_job(job.id):
        if artifact.output == ref.output:
            return artifact
    if job.state in (JobState.FAILED, JobState.CANCELLED):
        raise Conflict(f"{ref}: job {job.id} is {job.state} and has no such output")
    if job.state == JobState.SUCCEEDED:
        raise NotFound(
            f"{ref}: job {job.id} has no output {ref.output!r}; it has {', '.join(job.outputs) or 'none'}"
        )
    return None


def describe(artifact: Artifact) -> dict[str, Any]:
    """What a job keeps about an artifact that it reads: its lineage."""
    return {
        "artifact": artifact.id,
        "uri": artifact.uri,
        "sha256": artifact.sha256,
        "name": artifact.name,
        "version": artifact.version,
    }


def _check_file(ref: Ref, path: str, settings: Settings) -> None:
    """Links are followed first: one that leads out of the allowed folders is outside."""
    try:
        resolved = Path(ref.target).resolve()
        exists = resolved.exists()
    except (OSError, ValueError, RuntimeError) as error:
        raise InvalidRequest(f"{path}: {error}", [Problem(path, str(error))]) from error
    if not any(resolved.is_relative_to(root) for root in settings.allowed_paths):
        roots = ", ".join(str(root) for root in settings.allowed_paths)
        raise Forbidden(
            f"{path}: {resolved} is outside the folders that this service may read ({roots}). "
            "Set REASON_ALLOWED_PATHS, or put the file there."
        )
    if not exists:
        raise NotFound(f"{path}: there is no file or folder {resolved}")
