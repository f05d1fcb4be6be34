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
from pathlib import Path
from typing import IO

import zstandard

from core.data.io.readers import open_bytes
from core.data.io.stopping import no_stop
from core.errors import BadData
from core.native_errors import unreadable

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
        raise unreadable(f"{path.name} breaks off or is damaged", error) from error


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
    read_archive(archive, name, Extraction(name, folder, most_bytes, check_stop))
    return only_folder(folder)


class Extraction:
    """Writes the entries of one archive to a folder, under limits that hold for all of them together."""

    def __init__(self, name: str, folder: Path, most_bytes: int, check_stop: Callable[[], None]) -> None:
        self.name, self.folder, self.check_stop = name, folder, check_stop
        self._most = self._left = most_bytes
        self._made = {folder}  # folders: each is made once, not once for every file in it
        folder.mkdir(parents=True, exist_ok=True)

    def run(self, entries: Iterator[tuple[str, int, IO[bytes]]]) -> int:
        """Write every entry. Returns how many there were."""
        files = 0
        for path, size, source in entries:
            with source:
                self.check_stop()
                files += 1
                if size > self._left or files > MOST_FILES:
                    raise self._too_large()
                self.write(source, _inside(path))
        return files

    def write(self, source: IO[bytes], inside: str) -> None:
        """Write one entry to the path ``inside`` the folder."""
        with self.create(inside) as file:
            self.copy(source, file)

    def create(self, inside: str) -> IO[bytes]:
        """A new file. Raises `BadData` when the archive has another entry of this name."""
        target = self.folder / inside
        if target.parent not in self._made:
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
            except (FileExistsError, NotADirectoryError) as error:
                raise same_name(self.name, inside, folder=True) from error
            self._made.add(target.parent)
        try:
            return target.open("xb")
        except FileExistsError as error:
            raise same_name(self.name, inside, folder=target.is_dir()) from error

    def copy(self, source: IO[bytes], file: IO[bytes]) -> int:
        """Copy an entry, and return its bytes. The size that its header gives is not trusted."""
        written = 0
        while block := source.read(_BLOCK):
            self.check_stop()
            written += len(block)
            if written > self._left:
                raise self._too_large()
            file.write(block)
        self._left -= written
        return written

    def _too_large(self) -> UnpacksTooLarge:
        return UnpacksTooLarge(
            f"{self.name} unpacks to more than {self._most / 1e9:.1f} GB or {MOST_FILES:,} files"
        )


def read_archive(archive: Path, name: str, extraction: Extraction) -> None:
    """Give every entry of an archive to ``extraction``. Raises `BadData`."""
    entries = _zip_entries(archive) if name.lower().endswith(".zip") else _tar_entries(archive, name)
    try:
        files = extraction.run(entries)
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
        raise unreadable(f"{name} is not a readable archive", error) from error
    except UnicodeError as error:
        raise BadData(f"{name} has an entry whose name is not Unicode") from error
    if not files:
        raise BadData(f"{name} is empty: it has no file")


def same_name(archive: str, name: str, *, folder: bool) -> BadData:
    """The error for two entries that cannot both be files of these names."""
    what = "a file and a folder" if folder else "two entries"
    return BadData(f"{archive} has {what} with the name {name!r}: remove or rename one")


def only_folder(folder: Path) -> Path:
    """Descend while a folder holds nothing but one folder."""
    while True:
        inside = list(islice((path for path in folder.iterdir() if not is_clutter(path.name)), 2))
        if len(inside) != 1 or not inside[0].is_dir():
            return folder
        folder = inside[0]


def is_clutter(name: str) -> bool:
    """Whether a file or folder is hidden, or one that macOS adds to archives."""
    return name.startswith((".", "__MACOSX"))


def _inside(name: str) -> str:
    """The path of an entry, if it stays in the folder. Raises `BadData`."""
    plain = name.replace("\\", "/")
    parts = [part for part in plain.split("/") if part not in ("", ".")]
    if plain.startswith("/") or ".." in parts or not parts or ":" in parts[0] or "\0" in name:
        raise BadData(f"the archive has an entry {name!r} that leads out of its folder")
    if _CONTROL.search(name):
        raise BadData(
            f"the archive has an entry {name[:80]!r} with a control character in its name: rename it"
        )
    path = "/".join(parts)
    if len(path.encode()) > _LONGEST_PATH or any(len(part.encode()) > _LONGEST_NAME for part in parts):
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
