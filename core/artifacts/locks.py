"""Advisory locks on folders, so that one process never deletes what another one is writing."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

_FILE = ".lock"
_UNSUPPORTED = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})


class FolderInUse(Exception):
    """Another living process holds the folder's lock."""


class FolderLock:
    """Held until `close`, or until the process ends, however that ends.

    Raises `FolderInUse`. On a file system without locks nothing is locked, and `unlocked` finds no folder
    free.
    """

    def __init__(self, folder: Path) -> None:
        self._descriptor: int | None = os.open(folder / _FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _UNSUPPORTED:
                return
            self.close()
            if isinstance(error, BlockingIOError):
                raise FolderInUse(f"{folder} is in use by another process") from error
            raise

    def close(self) -> None:
        if self._descriptor is not None:
            # Not by closing alone: forked data loaders share the open file, and would keep it locked.
            with contextlib.suppress(OSError):
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            os.close(self._descriptor)
            self._descriptor = None


@contextlib.contextmanager
def unlocked(folder: Path) -> Iterator[bool]:
    """Tell whether no living process holds the folder; while the block runs, none can take it.

    A folder that never had a lock counts as free.
    """
    try:
        descriptor = os.open(folder / _FILE, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        yield True
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # held, or nobody can say
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)
