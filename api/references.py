"""Resolve the references of a spec when the job is submitted, so that later changes do not affect it."""

import os
from collections.abc import Container
from dataclasses import replace
from pathlib import Path

from core.data.fetching.remote import check_allowed, look
from core.errors import BadData, BadSpec, Forbidden, InvalidRequest, NotFound, Problem
from core.jobs.protocol import Input, UrlInput
from core.settings import Settings
from core.spec import AnySpec, ExportSpec
from core.spec.parse import validate_spec
from core.spec.parts.reference_places import replace_references
from core.spec.parts.refs import Ref, parse_ref
from core.store import Store
from core.store.retention.checkpoints import step_of
from core.store.schema.access import Access


def resolve_references(
    spec: AnySpec, store: Store, settings: Settings, access: Access, planned: Container[str] = ()
) -> tuple[dict[str, Input], list[str]]:
    """Checks every reference. Returns (inputs by reference, ids of jobs that must end first).

    ``planned``: ids of jobs that are added together with this one. What a job that has not ended will have
    made is looked up by the worker that starts this one; so is the model of a checkpoint.

    Raises `Forbidden` for files outside ALLOWED_PATHS, `NotFound` for what does not exist, or not for the
    caller.
    """
    inputs: dict[str, Input] = {}
    parents: list[str] = []
    for path, text in spec.references().items():
        ref = parse_ref(text)
        if ref.scheme == "job" and ref.target in planned:
            parents.append(ref.target)
        elif (known := find_input(text, path, store, settings, access)) is not None:
            if not ref.is_checkpoint or isinstance(spec, ExportSpec):
                inputs[text] = known
        elif ref.scheme == "job":
            parents.append(ref.target)
    return inputs, parents


def pin_checkpoints(spec: AnySpec, store: Store, access: Access, known: dict[str, str]) -> AnySpec:
    """The spec with the steps of the checkpoints that are the best and the last now, whatever comes later.

    ``known``: what was found for other stages of the same submission. Raises `NotFound` and `Conflict`.
    """

    def pinned(text: str) -> str:
        ref = parse_ref(text) if text.startswith("job:") else None
        if ref is None or not ref.is_checkpoint:
            return text
        if text not in known:
            found = store.artifacts.checkpoint(ref, access)
            known[text] = str(replace(ref, revision=str(step_of(found))))
        return known[text]

    before = spec.model_dump(mode="json")
    after = replace_references(before, spec.REFERENCES, pinned)
    return spec if after == before else validate_spec(after)


def find_input(text: str, path: str, store: Store, settings: Settings, access: Access) -> Input | None:
    """What the reference at ``path`` of a request means now; None for files and hubs, and for an output of a
    job that has not ended. Raises as `resolve_references` does."""
    ref = parse_ref(text)
    match ref.scheme:
        case "file":
            _check_file(ref, path, settings)
        case "job" | "model" | "dataset" | "artifact":
            return store.artifacts.lineage(ref, access)
        case "url":
            return _look_at_url(text, path, settings)
    return None


def _look_at_url(url: str, path: str, settings: Settings) -> UrlInput:
    """What lies at a URL when the job is submitted: a job says if it has changed until it begins."""
    try:
        check_allowed(url, settings.allowed_urls)
        found = look(url)
    except (Forbidden, NotFound) as error:
        raise type(error)(f"{path}: {error}") from error
    except (BadData, BadSpec) as error:
        raise InvalidRequest(f"{path}: {error}", [Problem(path, str(error))]) from error
    return UrlInput(url=url, sha256=found.sha256 or "", bytes=found.bytes, files=len(found.files))


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
            "Move the file there, or add its folder to REASON_ALLOWED_PATHS."
        )
    if not exists:
        raise NotFound(f"{path}: file or folder not found: {resolved}")
    if not os.access(resolved, os.R_OK | os.X_OK if resolved.is_dir() else os.R_OK):
        raise Forbidden(
            f"{path}: {resolved} cannot be read by the user of this service (user id {os.getuid()})"
        )
