"""Datasets of very many files are stored as one tar (docs/decisions/0010).

One file has one checksum, one fsync and one upload to object storage, and the manifest stays small.
"""

import tarfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from core.artifacts import MANIFEST
from core.data.archives import extract
from core.data.statistics import PREVIEW
from core.data.stopping import no_stop
from core.data.trees import walk

PACKED = "files.tar"
MOST_FILES = 1000
"""A dataset with more files than this is packed."""

_BLOCK = 1 << 20


def has_many_files(folder: Path) -> bool:
    """Whether a folder has more than `MOST_FILES` files, at any depth."""
    return next(islice(walk(folder), MOST_FILES, None), None) is not None


def pack(folder: Path, target: Path, check_stop: Callable[[], None] = no_stop) -> None:
    """Write the files of ``folder`` to ``target/files.tar``. Its preview stays a file of its own.

    The bytes depend only on the paths and the content of the files: entries are in path order, without times,
    owners and modes.
    """
    target.mkdir(parents=True)
    with (target / PACKED).open("wb") as packed:
        for name in walk(folder, check_stop=check_stop):
            if name == PREVIEW:
                (folder / name).rename(target / name)
                continue
            with (folder / name).open("rb") as file:
                entry = tarfile.TarInfo(name)
                entry.size = file.seek(0, 2)
                file.seek(0)
                packed.write(entry.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict"))
                while block := file.read(_BLOCK):
                    packed.write(block)
                    check_stop()
                packed.write(bytes(-entry.size % tarfile.BLOCKSIZE))
        packed.write(bytes(2 * tarfile.BLOCKSIZE))


def is_packed(folder: Path) -> bool:
    """Whether a folder is a packed dataset: it has the tar, and nothing else that a dataset could be."""
    if not (folder / PACKED).is_file():
        return False
    return all(path.name in (PACKED, MANIFEST) or path.name.startswith(".") for path in folder.iterdir())


def unpack(folder: Path, target: Path, check_stop: Callable[[], None] = no_stop) -> Path:
    """Extract a packed dataset into ``target``. Returns the folder that was packed. Raises `BadData`."""
    return extract(folder / PACKED, target, check_stop=check_stop)
