"""What a host keeps to use it again: entries under a key that holds everything that changes them.

An entry is a sealed folder, or a file in the folder of its key. Several jobs may make the same entry at
once, and any of them may be killed: an entry is whole, or it is not there. The least recently used go first.
"""

import contextlib
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from core.artifacts.folders import inspect_folder, is_whole, publish_folder

_DAY = 86_400.0


def key_of(described: object) -> str:
    """The hash of a description of plain values, whatever the order of its mappings.

    The one rule of keys: whatever changes an entry is described, by its content (never by a name or a path),
    with the versions of the libraries that take part.
    """
    return hashlib.sha256(json.dumps(described, sort_keys=True, default=repr).encode()).hexdigest()


class Cache:
    """The entries of one kind, below ``root / kind``.

    Above ``most_bytes`` the least recently used are dropped, unless they were used within
    ``in_use_seconds``: a running job may be about to open them. ``pattern`` finds the entries.
    """

    def __init__(
        self,
        root: Path,
        kind: str,
        most_bytes: int,
        *,
        in_use_seconds: float = _DAY,
        pattern: str = "*",
    ) -> None:
        self._root, self._kind = root, kind
        self._most_bytes, self._in_use_seconds, self._pattern = most_bytes, in_use_seconds, pattern
        self.folder = root / kind

    def find(self, key: str) -> Path | None:
        """The folder of that key, which is in use from now on; None where there is none, or half of one."""
        folder = self.folder / key
        return folder if is_whole(folder) and touch(folder) else None

    def make(self, key: str, fill: Callable[[Path], None]) -> Path:
        """The folder of that key, filled. Where another job has just made the same, that one stays."""
        final = self.folder / key
        staging = self._root / "staging" / uuid.uuid4().hex
        staging.mkdir(parents=True)
        try:
            fill(staging)
            # Nobody downloads it: checksums would be computed for nothing.
            publish_folder(staging, final, inspect_folder(staging, self._kind, hashes=False, sync=True))
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        self.trim(final)
        return final

    def trim(self, newest: Path | None = None) -> None:
        """Drop what is too much. Who reads an entry on this host still has it open."""
        found = []
        for path in self.folder.glob(self._pattern):
            with contextlib.suppress(FileNotFoundError):  # another job has just dropped it
                found.append((path.stat().st_mtime, _size(path), path))
        kept, in_use = 0, time.time() - self._in_use_seconds
        for last_use, size, path in sorted(found, reverse=True):
            kept += size
            if kept > self._most_bytes and last_use <= in_use and path != newest:
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)


def touch(path: Path) -> bool:
    """Whether an entry is there; then it is in use."""
    with contextlib.suppress(FileNotFoundError):
        os.utime(path)
        return True
    return False


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write, which is there as a whole or not at all, also after a power cut."""
    temporary = path.with_name(f".{uuid.uuid4().hex}{path.suffix}")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size
