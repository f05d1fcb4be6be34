"""A body becomes a dataset: received, hashed on the way, read to its end, kept. What models share of it."""

import contextlib
import hashlib
import shutil
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import Request
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from core.artifacts import MANIFEST, Library
from core.data.io.archives import UnpacksTooLarge, is_archive
from core.data.io.packing import has_many_files, pack
from core.data.io.stopping import no_stop
from core.data.rows.kept_reading import read_reading, write_reading
from core.data.rows.statistics import PREVIEW, write_preview
from core.data.uploads.inspected import Inspected
from core.data.uploads.upload import ending_of, inspect, unpack
from core.errors import (
    BadData,
    BadRequest,
    InvalidRequest,
    NotFound,
    Problem,
    StorageFailure,
    TooLarge,
    Unavailable,
)
from core.native_errors import first_line
from core.settings import Settings
from core.spec.parse import problems_of
from core.spec.parts.forms import NUMBER, matches
from core.spec.parts.rows import READING, RowOptions
from core.store import Store
from core.store.artifacts import NewArtifact
from core.store.retention.files import NotHeld
from core.store.schema.access import Access
from core.store.schema.tables import Artifact
from core.text import escaped_json

BINARY = {"schema": {"type": "string", "format": "binary"}}
"""Of bodies that are a file."""

_UNPACKED = 20
"""An archive may unpack to so many times the limit: text packs well, and bombs a thousand times better."""

_FORGOTTEN_SECONDS = 24 * 3600


@dataclass(frozen=True)
class Received:
    """A body on disk."""

    folder: Path  # of this upload alone
    path: Path
    sha256: str
    bytes: int
    media_type: str | None


@asynccontextmanager
async def receive(request: Request, settings: Settings) -> AsyncIterator[Received]:
    """The body in a file, which is gone when this ends, however it ends.

    Raises `TooLarge` as soon as it is, `BadRequest` for a form and for nothing, `StorageFailure` for a full
    disk.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower() or None
    if media_type == "multipart/form-data":
        raise BadRequest("The body must be the file itself: use curl --data-binary @FILE, not curl -F")
    folder = settings.data_dir / "uploads" / uuid.uuid4().hex
    path = folder / "body"
    digest, size = hashlib.sha256(), 0
    try:
        await run_in_threadpool(_make_room, folder)
        with path.open("wb") as file:
            async for block in request.stream():
                size += len(block)
                if size > settings.max_upload_bytes:
                    raise TooLarge(
                        f"The body is larger than REASON_MAX_UPLOAD_BYTES ({settings.max_upload_bytes})."
                    )
                digest.update(block)
                await run_in_threadpool(file.write, block)
        if not size:
            raise BadRequest("The body is empty")
        yield Received(folder, path, digest.hexdigest(), size, media_type)
    except ClientDisconnect as error:
        raise BadRequest("The connection was closed before the end of the body") from error
    except OSError as error:
        raise StorageFailure(
            f"The upload cannot be written to REASON_DATA_DIR: {error.strerror or first_line(error)}"
        ) from error
    finally:
        await run_in_threadpool(shutil.rmtree, folder, ignore_errors=True)


def _make_room(folder: Path) -> None:
    """A folder for an upload. What a server that died has left behind is removed."""
    folder.mkdir(parents=True)
    for other in folder.parent.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if other != folder and time.time() - other.stat().st_mtime > _FORGOTTEN_SECONDS:
                shutil.rmtree(other, ignore_errors=True)


def options_of(columns: list[str], encoding: str | None) -> RowOptions:
    """``["query:title", "negatives:a", "negatives:b"]`` and an encoding, as a spec's options.

    Digits are a number of a file without a header. Raises `InvalidRequest`.
    """
    by_role: dict[str, str | int | list[str | int]] = {}
    for text in columns:
        role, _, column = text.partition(":")
        name = int(column) if matches(NUMBER, column) else column
        if role not in by_role:
            by_role[role] = name
            continue
        before = by_role[role]
        by_role[role] = [*(before if isinstance(before, list) else [before]), name]
    try:
        return RowOptions.model_validate({"columns": by_role, "encoding": encoding})
    except ValidationError as error:
        problems = problems_of(error)
        raise InvalidRequest(f"{problems[0].path}: {problems[0].message}", problems) from error


def keep(
    received: Received,
    name: str,
    filename: str | None,
    max_reject_share: float,
    options: RowOptions,
    store: Store,
    settings: Settings,
    library: Library,
    access: Access,
    check_stop: Callable[[], None] = no_stop,
) -> tuple[Artifact, bool]:
    """Read everything, and publish it as the next version of its name. Returns it, and whether it is new.

    Raises `InvalidRequest` with a problem for each of the first bad lines. What ``check_stop`` raises ends
    the work, and nothing is published.
    """
    check_upload_name(name)
    folder = unpacked(received, filename, settings, check_stop)
    try:
        _check_names(folder)
        options = _with_kept(options, folder)
        found = inspect(folder, options, check_stop)
    except BadData as error:
        message = _as_parameters(str(error))
        raise InvalidRequest(message, [Problem("body", message)]) from error
    except RecursionError as error:
        raise InvalidRequest(
            "The body is nested too deeply", [Problem("body", "nested too deeply")]
        ) from error
    _check(found, max_reject_share)
    many = has_many_files(folder)
    if found.preview:
        write_preview(folder, found.preview)
    reading = write_reading(folder, options)
    metadata: dict[str, Any] = {
        "name": name,
        "filename": filename,
        "upload_sha256": received.sha256,
        "format": found.format,
        "splits": found.splits,
        "columns": found.columns,
        "rejected": found.rejected,
        "statistics": found.statistics.page(),
    }
    told = {"ignored": found.ignored, "empty": found.empty, "reading": reading}
    metadata |= {field: value for field, value in told.items() if value}
    if many:
        pack(folder, received.folder / "packed", check_stop)
        folder = received.folder / "packed"
    check_stop()
    return keep_as("dataset", folder, name, metadata, store, library, access, check_stop)


def check_upload_name(name: str) -> None:
    """Raises `InvalidRequest` for a name that would be taken for an id."""
    if name.startswith("art_"):
        raise InvalidRequest(
            "name must not begin with art_, which marks ids", [Problem("name", "must not begin with art_")]
        )


def unpacked(
    received: Received,
    filename: str | None,
    settings: Settings,
    check_stop: Callable[[], None],
    *,
    only_archives: bool = False,
) -> Path:
    """The body as a folder: an archive's content, or the one file. Raises `TooLarge`, `InvalidRequest`."""
    try:
        ending = _ending(received, filename, only_archives=only_archives)
        most = _UNPACKED * settings.max_upload_bytes
        return unpack(received.path, ending, received.folder / "in", most, check_stop)
    except UnpacksTooLarge as error:
        raise TooLarge(str(error)) from error
    except BadData as error:
        raise InvalidRequest(str(error), [Problem("body", str(error))]) from error


def _ending(received: Received, filename: str | None, *, only_archives: bool) -> str:
    if not only_archives:
        return ending_of(received.path, filename, received.media_type)
    with contextlib.suppress(BadData):
        ending = ending_of(received.path, filename, received.media_type)
        if is_archive(f"archive{ending}"):
            return ending
    raise BadData("the body is not an archive: send a tar or zip of the folder")


def keep_as(
    kind: str,
    folder: Path,
    name: str,
    metadata: dict[str, Any],
    store: Store,
    library: Library,
    access: Access,
    check_stop: Callable[[], None],
) -> tuple[Artifact, bool]:
    """Publish a folder, which is gone then, as the next version of its name."""
    published = library.publish(folder, kind, metadata, check_stop)
    manifest: dict[str, Any] = published.manifest.model_dump(mode="json")
    # Another upload of the same content may have been first, under another name: its page stays in the
    # storage, ours is in the row.
    manifest["metadata"] = escaped_json(metadata)
    uri, sha256, size = published.uri, published.manifest.sha256, published.manifest.bytes
    while True:
        hold = store.folders.hold(uri)
        try:
            library.check(uri)
            new = NewArtifact(kind, kind, uri, sha256, size, manifest, hold)
            return store.artifacts.add_upload(new, name, access)
        except NotHeld:  # a row for the same files has just been added
            continue
        except NotFound as error:  # removed since it was published: nothing needed the same content
            raise Unavailable(f"Equal files were just being removed: send them again. ({error})") from error


def _as_parameters(message: str) -> str:
    """A message that names the options of a job's source, with the way to say them to an upload."""
    if "columns: {" in message:
        return f"{message} (for an upload: columns=query:NAME&columns=positive:NAME)"
    if "`encoding: " in message:
        return f"{message} (for an upload: encoding=NAME)"
    return message


def _with_kept(options: RowOptions, folder: Path) -> RowOptions:
    """The sender's options, or those of a dataset that was downloaded and is sent again."""
    if options.columns or options.encoding:
        return options
    return read_reading(folder) or options


def _check_names(folder: Path) -> None:
    """Raises `BadData` for folders with the names of files that the service writes."""
    for name in (MANIFEST, PREVIEW, READING):
        if (folder / name).is_dir():
            raise BadData(
                f"the archive has a folder named {name!r}, which the service uses for a file: rename it"
            )


def _check(found: Inspected, max_reject_share: float) -> None:
    whole = found.rows + found.rejected
    if not whole:
        empty = f": its {found.empty} documents contain no text" if found.empty else ""
        message = f"The upload contains no rows and no documents{empty}"
        raise InvalidRequest(message, [Problem("body", message)])
    if found.rejected > max_reject_share * whole or not found.rows:
        problems = [Problem(f"{reject.file}, line {reject.line}", reject.reason) for reject in found.rejects]
        first = _as_parameters(f"{problems[0].path}: {problems[0].message}") if problems else ""
        what = "files" if "documents" in found.splits else "rows"
        raise InvalidRequest(
            f"{found.rejected} of {whole} {what} cannot be used, which is more than max_reject_share "
            f"({max_reject_share:g}). {first}",
            problems,
        )
