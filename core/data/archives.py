"""Archives that somebody sent: taken apart without trusting them.

No entry may lead out of the folder, be a link or a device, and all of them together may not grow beyond a
limit.
"""

import lzma
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO

import zstandard

from core.data.readers import open_bytes
from core.data.stopping import no_stop
from core.errors import BadData

_TAR = (".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")
_BLOCK = 1 << 20
_LONGEST_NAME = 255
_LONGEST_PATH = 1024
_CONTROL = re.compile("[\x01-\x1f\x7f]")
MOST_FILES = 1_000_000
MOST_BYTES = 256 << 30


class UnpacksTooLarge(BadData):
    """It would unpack to more than is allowed."""


def check_size(path: Path, most_bytes: int, check_stop: Callable[[], None] = no_stop) -> None:
    """Raises `UnpacksTooLarge` when a compressed file holds more than that, `BadData` when it is damaged."""
    size = 0
    try:
        with open_bytes(path) as file:
            while block := file.read(_BLOCK):
                check_stop()
                size += len(block)
                if size > most_bytes:
                    raise UnpacksTooLarge(f"{path.name} unpacks to more than {most_bytes / 1e9:.1f} GB")
    except (OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
        raise BadData(f"{path.name} breaks off or is damaged: {error}") from error


def is_archive(name: str) -> bool:
    return name.lower().endswith((*_TAR, ".zip"))


def extract(
    archive: Path,
    folder: Path,
    name: str = "",
    *,
    most_bytes: int = MOST_BYTES,
    check_stop: Callable[[], None] = no_stop,
) -> Path:
    """Extract an archive into ``folder``. Returns the folder in it that holds everything.

    ``name`` is the archive's name, if its path does not end like it. Raises `BadData`, and whatever
    ``check_stop`` raises: it is called for every entry and every block.
    """
    name = name or archive.name
    entries = _zip_entries(archive) if name.lower().endswith(".zip") else _tar_entries(archive, name)
    try:
        files = _Extraction(name, folder, most_bytes, check_stop).run(entries)
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        zstandard.ZstdError,
        EOFError,
        NotImplementedError,
        RuntimeError,
    ) as error:
        raise BadData(f"{name} is not a readable archive: {error}") from error
    except UnicodeError as error:
        raise BadData(f"{name} has an entry whose name is not Unicode") from error
    if not files:
        raise BadData(f"{name} is empty: it has no file")
    return _only_folder(folder)


class _Extraction:
    """Writes the entries of one archive, under limits that hold for all of them together."""

    def __init__(self, name: str, folder: Path, most_bytes: int, check_stop: Callable[[], None]) -> None:
        self._name, self._folder, self._check_stop = name, folder, check_stop
        self._most = self._left = most_bytes
        self._made = {folder}  # folders: each is made once, not once for every file in it
        folder.mkdir(parents=True, exist_ok=True)

    def run(self, entries: Iterator[tuple[str, int, IO[bytes]]]) -> int:
        """Write every entry. Returns how many there were."""
        files = 0
        for path, size, source in entries:
            self._check_stop()
            files += 1
            if size > self._left or files > MOST_FILES:
                raise self._too_large()
            inside = _inside(path)
            try:
                self._write(source, self._folder / inside)
            except FileExistsError as error:
                what = "a file and a folder" if (self._folder / inside).is_dir() else "two entries"
                raise BadData(
                    f"{self._name} has {what} with the name {str(inside)!r}: remove or rename one"
                ) from error
            except NotADirectoryError as error:
                raise BadData(
                    f"{self._name} has a file and a folder with one name: {str(inside)!r}"
                ) from error
        return files

    def _write(self, source: IO[bytes], target: Path) -> None:
        """The size that the entry's header gives is not trusted."""
        if target.parent not in self._made:
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
            except FileExistsError as error:
                raise NotADirectoryError(str(target.parent)) from error
            self._made.add(target.parent)
        with source, target.open("xb") as file:
            while block := source.read(_BLOCK):
                self._check_stop()
                self._left -= len(block)
                if self._left < 0:
                    raise self._too_large()
                file.write(block)

    def _too_large(self) -> UnpacksTooLarge:
        return UnpacksTooLarge(
            f"{self._name} unpacks to more than {self._most / 1e9:.1f} GB or {MOST_FILES:,} files"
        )


def _only_folder(folder: Path) -> Path:
    """Descend while a folder holds nothing but one folder."""
    while True:
        inside = list(islice((path for path in folder.iterdir() if not _is_clutter(path.name)), 2))
        if len(inside) != 1 or not inside[0].is_dir():
            return folder
        folder = inside[0]


def _is_clutter(name: str) -> bool:
    return name.startswith((".", "__MACOSX"))


def _inside(name: str) -> PurePosixPath:
    """The path of an entry, if it stays in the folder. Raises `BadData`."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or not path.parts or ":" in path.parts[0] or "\0" in name:
        raise BadData(f"the archive has an entry {name!r} that leads out of its folder")
    if _CONTROL.search(name):
        raise BadData(
            f"the archive has an entry {name[:80]!r} with a control character in its name: rename it"
        )
    if len(str(path).encode()) > _LONGEST_PATH or any(
        len(part.encode()) > _LONGEST_NAME for part in path.parts
    ):
        raise BadData(
            f"the archive has an entry whose name is too long: {name[:80]!r}... A name may have "
            f"{_LONGEST_NAME} bytes, a path {_LONGEST_PATH}"
        )
    return path


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
        while (entry := opened.next()) is not None:
            opened.members = []  # type: ignore[attr-defined]  # else they pile up: a kilobyte for each
            if entry.isdir():
                continue
            if not entry.isreg():
                raise BadData(f"the archive has an entry {entry.name!r} that is no plain file")
            source = opened.extractfile(entry)
            assert source is not None, "it is a regular file"
            yield entry.name, entry.size, source
