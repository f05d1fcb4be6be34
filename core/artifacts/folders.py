"""Local folders that are either whole or not there: staged, hashed, fsynced, renamed, manifest last."""

import contextlib
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from core.spec.parts.base import Lenient
from core.text import escaped_json

MANIFEST = "manifest.json"
_BLOCK = 1 << 20
_TRIES = 10


class FileEntry(Lenient):
    """A file of an artifact. ``path`` is relative, with forward slashes."""

    path: str
    bytes: int
    sha256: str = ""


class Manifest(Lenient):
    """What is in a folder, and where it came from. ``sha256`` covers paths, sizes and hashes of its files.

    Texts of ``metadata`` that UTF-8 or a database cannot hold are escaped (`core.text`).
    """

    kind: str
    sha256: str = ""
    files: list[FileEntry]
    metadata: dict[str, Any] = Field(default_factory=dict)
    created_at: datetime = Field(default_factory=lambda: datetime.now(UTC))

    @field_validator("metadata", mode="before")
    @classmethod
    def _escaped(cls, value: Any) -> Any:
        return escaped_json(value)

    @property
    def bytes(self) -> int:
        return sum(entry.bytes for entry in self.files)


def seal(folder: Path, kind: str, metadata: dict[str, Any] | None = None, *, hashes: bool = True) -> Manifest:
    """Makes a folder whole: every file on the disk, then the manifest that says so.

    ``hashes=False`` leaves out the sums, for folders that nobody downloads (checkpoints).
    """
    manifest = inspect_folder(folder, kind, metadata, hashes=hashes, sync=True)
    write_manifest(folder, manifest)
    return manifest


def inspect_folder(
    folder: Path,
    kind: str,
    metadata: dict[str, Any] | None = None,
    *,
    hashes: bool = True,
    sync: bool = False,
    check_stop: Callable[[], None] = lambda: None,
) -> Manifest:
    """List (and hash, and fsync) the files of a folder, in the order of their paths.

    ``check_stop`` is called for every file and every block that is hashed; what it raises ends the work.
    """
    entries = []
    for path in sorted(folder.rglob("*")):
        if path.is_dir() or path == folder / MANIFEST:
            continue
        check_stop()
        sha256 = sha256_of(path, check_stop) if hashes else ""
        if sync:
            _fsync(path)
        entries.append(
            FileEntry(path=path.relative_to(folder).as_posix(), bytes=path.stat().st_size, sha256=sha256)
        )
    if sync:
        for directory in {folder, *(path for path in folder.rglob("*") if path.is_dir())}:
            _fsync(directory)
    return Manifest(
        kind=kind, sha256=_content_hash(entries) if hashes else "", files=entries, metadata=metadata or {}
    )


def write_manifest(folder: Path, manifest: Manifest) -> None:
    write_atomically(folder / MANIFEST, manifest.model_dump_json(indent=2))


def write_atomically(path: Path, text: str) -> None:
    """The old content or the new one, never half of it, also after a power cut."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    _fsync(path.parent)


def read_manifest(folder: Path) -> Manifest | None:
    """None when the folder was never sealed."""
    try:
        return Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None


def is_whole(folder: Path) -> bool:
    """Sealed, and every file there with the size it had. Does not hash."""
    manifest = read_manifest(folder)
    if manifest is None:
        return False
    try:
        return all((folder / entry.path).stat().st_size == entry.bytes for entry in manifest.files)
    except FileNotFoundError:
        return False


def publish_folder(source: Path, final: Path, manifest: Manifest) -> None:
    """Moves an inspected, fsynced folder to its final place. A whole one that is there already is kept.

    The manifest is the last file that is written, and then all of it appears at once: whoever publishes the
    same content at the same time finds it whole or not at all. ``source`` and ``final`` lie on one file
    system; ``source`` is gone afterwards.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    write_manifest(source, manifest)
    for _ in range(_TRIES):
        if is_whole(final):
            shutil.rmtree(source)
            return
        try:
            source.rename(final)
        except OSError:
            if not final.exists():
                raise
        else:
            _fsync(final.parent)
            return
        _remove_broken(final)
    raise OSError(f"{final} is made and removed by others all the time")


def _remove_broken(final: Path) -> None:
    """Remove a folder that files are missing from. One that others put in its place meanwhile stays."""
    try:
        looked_at = os.open(final, os.O_RDONLY)  # while it is open, no other folder gets its number
    except FileNotFoundError:
        return
    try:
        before = os.fstat(looked_at)
        if is_whole(final) or not os.path.samestat(before, final.stat()):
            return
        aside = final.with_name(f".{final.name}.{uuid.uuid4().hex}")
        final.rename(aside)
        if not os.path.samestat(before, aside.stat()):
            with contextlib.suppress(OSError):  # there is a third one by now
                aside.rename(final)
        shutil.rmtree(aside, ignore_errors=True)
    except FileNotFoundError:
        return
    finally:
        os.close(looked_at)


def inspect_folder_and_place(source: Path, final: Path, kind: str, metadata: dict[str, Any]) -> Manifest:
    """Hashes, fsyncs and moves a finished folder, then writes its manifest."""
    manifest = inspect_folder(source, kind, metadata, sync=True)
    publish_folder(source, final, manifest)
    return manifest


def fresh_folder(folder: Path) -> Path:
    """An empty folder, whatever an earlier attempt has left there."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    return folder


@contextlib.contextmanager
def staged(final: Path) -> Iterator[Path]:
    """Yield a path beside ``final`` that this caller alone knows; what was made there becomes ``final``.

    Where another process has made ``final`` meanwhile, that one stays. A block that raises leaves nothing.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    staging = final.with_name(f".{final.name[:100]}.{uuid.uuid4().hex}")
    try:
        yield staging
        try:
            staging.rename(final)
        except OSError:
            if not final.is_dir():
                raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def sha256_of(path: Path, check_stop: Callable[[], None] = lambda: None) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            check_stop()
            digest.update(block)
    return digest.hexdigest()


def _content_hash(entries: list[FileEntry]) -> str:
    lines = "".join(f"{entry.sha256} {entry.bytes} {entry.path}\n" for entry in entries)
    return hashlib.sha256(lines.encode()).hexdigest()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
