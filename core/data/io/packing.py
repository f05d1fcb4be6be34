"""Datasets of very many files are stored as one tar and its index (docs/decisions/0010).

One file has one checksum, one fsync and one upload to object storage, and the manifest stays small. Documents
are read from it as it is: nothing is extracted.
"""

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO

from core.artifacts import MANIFEST
from core.data.io.archives import extract
from core.data.io.stopping import no_stop
from core.data.io.trees import walk
from core.data.rows.statistics import PREVIEW
from core.errors import BadData
from core.spec.parts.rows import READING

PACKED = "files.tar"
INDEX = "files.index"
MOST_FILES = 200
"""A dataset with more files than this is packed."""

_BLOCK = 1 << 20


class Packer:
    """Writes files to ``folder/files.tar`` and their places to ``folder/files.index``.

    The bytes depend only on the paths, the content and the order of the files: entries have no times, owners
    and modes.
    """

    def __init__(self, folder: Path, check_stop: Callable[[], None] = no_stop) -> None:
        folder.mkdir(parents=True)
        self._check_stop = check_stop
        self._tar = (folder / PACKED).open("wb")
        self._index = (folder / INDEX).open("w", encoding="utf-8")

    def add(self, name: str, size: int, source: IO[bytes]) -> None:
        """Append ``size`` bytes of a source."""
        entry = tarfile.TarInfo(name)
        entry.size = size
        self._tar.write(entry.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict"))
        self._index.write(f"{json.dumps([name, self._tar.tell(), size], ensure_ascii=False)}\n")
        left = size
        while left:
            self._check_stop()
            block = source.read(min(_BLOCK, left))
            if not block:
                raise EOFError(f"{name} is shorter than it was")
            self._tar.write(block)
            left -= len(block)
        self._tar.write(bytes(-size % tarfile.BLOCKSIZE))

    def __enter__(self) -> "Packer":
        return self

    def __exit__(self, *_: object) -> None:
        self._tar.write(bytes(2 * tarfile.BLOCKSIZE))
        self._tar.close()
        self._index.close()


def has_many_files(folder: Path) -> bool:
    """Whether a folder has more than `MOST_FILES` files, at any depth."""
    return next(islice(walk(folder), MOST_FILES, None), None) is not None


def pack(folder: Path, target: Path, check_stop: Callable[[], None] = no_stop) -> None:
    """Pack the files of ``folder`` in path order. Its preview and its reading stay files of their own."""
    with Packer(target, check_stop) as packer:
        for name in walk(folder, check_stop=check_stop):
            if name in (PREVIEW, READING):
                (folder / name).rename(target / name)
                continue
            with (folder / name).open("rb") as file:
                packer.add(name, (folder / name).stat().st_size, file)


def is_packed(folder: Path) -> bool:
    """Whether a folder is a packed dataset: it has the tar and the index, and no other visible file."""
    if not ((folder / PACKED).is_file() and (folder / INDEX).is_file()):
        return False
    ours = (PACKED, INDEX, MANIFEST)
    return all(path.name in ours or path.name.startswith(".") for path in folder.iterdir())


def packed_names(folder: Path) -> Iterator[str]:
    """The paths of the files of a packed dataset that are not hidden."""
    for file in tree_files(folder):
        if not any(part.startswith(".") for part in file.name.split("/")):
            yield file.name


def unpack(folder: Path, target: Path, check_stop: Callable[[], None] = no_stop) -> Path:
    """Extract a packed dataset into ``target``. Returns the folder that was packed. Raises `BadData`."""
    return extract(folder / PACKED, target, check_stop=check_stop)


@dataclass(frozen=True)
class TreeFile:
    """A file of a tree, on disk or in a tar. ``name`` is its path below the tree."""

    name: str
    place: Path
    offset: int = 0
    packed_bytes: int | None = None  # None: the whole of ``place``

    @property
    def bytes(self) -> int:
        return self.place.stat().st_size if self.packed_bytes is None else self.packed_bytes

    def open(self) -> io.BufferedReader:
        if self.packed_bytes is None:
            return self.place.open("rb")
        with self.place.open("rb") as packed:
            packed.seek(self.offset)
            content = packed.read(self.packed_bytes)
        if len(content) < self.packed_bytes:
            raise BadData(f"{self.place.name} is shorter than its index says: {self.name} is cut off")
        return io.BufferedReader(io.BytesIO(content))


def tree_files(
    folder: Path,
    *,
    enter: Callable[[str], bool] = lambda name: True,
    check_stop: Callable[[], None] = no_stop,
) -> Iterator[TreeFile]:
    """Every file of a folder or of a packed dataset, in path order; ``enter`` decides as for `walk`."""
    if not is_packed(folder):
        for name in walk(folder, enter=enter, check_stop=check_stop):
            yield TreeFile(name, folder / name)
        return
    place = folder / PACKED
    with (folder / INDEX).open(encoding="utf-8") as index:
        for line in index:
            check_stop()
            name, offset, size = json.loads(line)
            if all(map(enter, name.split("/")[:-1])):
                yield TreeFile(name, place, offset, size)
