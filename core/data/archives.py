"""Archives that somebody sent: taken apart without trusting them.

No entry may lead out of the folder, be a link or a device, and all of them together may not grow beyond a
limit.
"""

import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

import zstandard

from core.data.readers import open_bytes
from core.errors import BadData
from core.native_errors import unreadable

_TAR = (".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")
_BLOCK = 1 << 20
_LONGEST_NAME = 255
MOST_FILES = 1_000_000
MOST_BYTES = 256 << 30


class UnpacksTooLarge(BadData):
    """It would unpack to more than is allowed."""


def check_size(path: Path, most_bytes: int) -> None:
    """Raises `UnpacksTooLarge` when a compressed file holds more than that, `BadData` when it is damaged."""
    size = 0
    try:
        with open_bytes(path) as file:
            while block := file.read(_BLOCK):
                size += len(block)
                if size > most_bytes:
                    raise UnpacksTooLarge(f"{path.name} unpacks to more than {most_bytes / 1e9:.1f} GB")
    except (OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
        raise unreadable(f"{path.name} breaks off or is damaged", error) from error


def is_archive(name: str) -> bool:
    return name.lower().endswith((*_TAR, ".zip"))


def extract(archive: Path, folder: Path, name: str = "", *, most_bytes: int = MOST_BYTES) -> Path:
    """Takes an archive apart into ``folder``. Returns the folder in it that holds everything.

    ``name`` is what the archive is called, if its path does not say. Raises `BadData`.
    """
    name = name or archive.name
    folder.mkdir(parents=True, exist_ok=True)
    entries = _zip_entries(archive) if name.lower().endswith(".zip") else _tar_entries(archive, name)
    left, files = most_bytes, 0
    try:
        for path, size, source in entries:
            target = folder / _inside(path)
            files += 1
            if size > left or files > MOST_FILES:
                raise UnpacksTooLarge(
                    f"{name} unpacks to more than {most_bytes / 1e9:.1f} GB or {MOST_FILES} files"
                )
            target.parent.mkdir(parents=True, exist_ok=True)
            left -= _copy(source, target, left, name, most_bytes)
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        zlib.error,
        zstandard.ZstdError,
        EOFError,
        NotImplementedError,
        RuntimeError,
    ) as error:
        raise unreadable(f"{name} is not a readable archive", error) from error
    except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
        raise BadData(f"{name} has a file where it has a folder") from error
    except UnicodeError as error:
        raise BadData(f"{name} has an entry whose name is not Unicode") from error
    if not files:
        raise BadData(f"{name} is empty")
    return _only_folder(folder)


def _only_folder(folder: Path) -> Path:
    inside = [path for path in folder.iterdir() if not path.name.startswith((".", "__MACOSX"))]
    return _only_folder(inside[0]) if len(inside) == 1 and inside[0].is_dir() else folder


def _inside(name: str) -> PurePosixPath:
    """The path of an entry, if it stays in the folder. Raises `BadData`."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or not path.parts or ":" in path.parts[0] or "\0" in name:
        raise BadData(f"the archive has an entry {name!r} that leads out of its folder")
    if any(len(part.encode()) > _LONGEST_NAME for part in path.parts):
        raise BadData(f"the archive has an entry whose name is too long: {name[:80]!r}...")
    return path


def _copy(source: IO[bytes], target: Path, left: int, name: str, most_bytes: int) -> int:
    """What an entry says of its size is not believed."""
    written = 0
    with source, target.open("wb") as file:
        while block := source.read(_BLOCK):
            written += len(block)
            if written > left:
                raise UnpacksTooLarge(f"{name} unpacks to more than {most_bytes / 1e9:.1f} GB")
            file.write(block)
    return written


def _zip_entries(archive: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    with zipfile.ZipFile(archive) as opened:
        for entry in opened.infolist():
            if entry.is_dir():
                continue
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if kind not in (0, stat.S_IFREG):
                raise BadData(f"the archive has an entry {entry.filename!r} that is no plain file")
            yield entry.filename, entry.file_size, opened.open(entry)


def _tar_entries(archive: Path, name: str) -> Iterator[tuple[str, int, IO[bytes]]]:
    zstd = name.lower().endswith(".zst")
    with (
        zstandard.open(archive, "rb") if zstd else archive.open("rb") as raw,
        tarfile.open(fileobj=raw, mode="r|" if zstd else "r|*") as opened,
    ):
        for entry in opened:
            if entry.isdir():
                continue
            if not entry.isreg():
                raise BadData(f"the archive has an entry {entry.name!r} that is no plain file")
            source = opened.extractfile(entry)
            assert source is not None, "it is a regular file"
            yield entry.name, entry.size, source
