"""The job's log: standard output and standard error of its process."""

import contextlib
import os
from pathlib import Path


class RunLog:
    """``log.txt`` of a run folder, which this process, its libraries and its children write to."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def redirect(self) -> None:
        """Send standard output and standard error to the file. Raises `OSError`."""
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.close(descriptor)

    def restore(self) -> bool:
        """Create the file again where it was deleted or replaced. Returns whether that was so.

        Nothing happens where its folder is gone: the events file's writer and reader notice that.
        """
        with contextlib.suppress(OSError):
            if self._path.exists() and os.path.samestat(os.fstat(2), self._path.stat()):
                return False
            self.redirect()
            return True
        return False
