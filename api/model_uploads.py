"""An archive becomes a model: unpacked, checked as a job would check it, kept."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from api.uploads import Received, check_upload_name, keep_as, unpacked
from core.artifacts import MANIFEST, Library
from core.data.io.archives import is_clutter
from core.data.io.stopping import no_stop
from core.errors import BadModel, InvalidRequest, Problem
from core.models.description import Description
from core.models.files import check_folder, pickled
from core.settings import Settings
from core.store import Store
from core.store.schema.access import Access
from core.store.schema.tables import Artifact


def keep_model(
    received: Received,
    name: str,
    filename: str | None,
    store: Store,
    settings: Settings,
    library: Library,
    access: Access,
    check_stop: Callable[[], None] = no_stop,
) -> tuple[Artifact, bool]:
    """Publish the archive's folder as the next version of its name. Returns it, and whether it is new.

    Weights that are pickles are left out, and named in the metadata. Raises `InvalidRequest` for what no job
    could load. What ``check_stop`` raises ends the work, and nothing is published.
    """
    check_upload_name(name)
    folder = unpacked(received, filename, settings, check_stop, only_archives=True)
    try:
        described = check_folder(folder, "The archive", trust_remote_code=settings.trust_remote_code)
    except BadModel as error:
        raise InvalidRequest(str(error), [Problem("body", str(error))]) from error
    left_out = [str(path.relative_to(folder)) for path in pickled(folder)]
    for path in left_out:
        (folder / path).unlink()
    ignored = _remove_clutter(folder)
    _remove(folder, MANIFEST)  # of a model that was downloaded: the storage writes its own
    metadata: dict[str, Any] = {
        "name": name,
        "filename": filename,
        "upload_sha256": received.sha256,
        "family": _family(described),
        "architectures": described.architectures,
        **({"left_out": left_out} if left_out else {}),
        **({"ignored": ignored} if ignored else {}),
    }
    check_stop()
    return keep_as("model", folder, name, metadata, store, library, access, check_stop)


def _family(described: Description) -> str | None:
    """None where the files leave it open: whoever uses the model must say it."""
    try:
        return described.family("the model")
    except BadModel:
        return None


def _remove_clutter(folder: Path) -> list[str]:
    """Hidden files, and what macOS adds: they would make another version of the same model."""
    found = []
    for path in sorted(folder.rglob("*"), reverse=True):
        inside = path.relative_to(folder)
        if any(is_clutter(part) for part in inside.parts):
            if path.is_dir():
                path.rmdir()
            else:
                path.unlink()
                found.append(str(inside))
    return sorted(found)


def _remove(folder: Path, name: str) -> None:
    if (folder / name).is_dir():
        message = f"the archive has a folder named {name!r}, which the service uses for a file: rename it"
        raise InvalidRequest(message, [Problem("body", message)])
    (folder / name).unlink(missing_ok=True)
