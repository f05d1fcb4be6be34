"""Small real file systems for tests: disks that are full, read-only, or gone."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


class Disk:
    """A mounted tmpfs of a fixed size."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filling = folder / "filling"

    def fill(self) -> None:
        """Leave not one free byte."""
        descriptor = os.open(self._filling, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        block = b"x" * (1 << 16)
        try:
            while block:
                try:
                    os.write(descriptor, block)
                except OSError:
                    block = block[: len(block) // 2]
        finally:
            os.close(descriptor)

    def free(self) -> None:
        self._filling.unlink()

    def remount(self, option: str) -> None:
        """``ro`` or ``rw``."""
        subprocess.run(["mount", "-o", f"remount,{option}", str(self.folder)], check=True)


@contextlib.contextmanager
def mounted(folder: Path, size: str) -> Iterator[Disk]:
    """Mount a tmpfs of ``size`` (as mount takes it). Skips the test where mounting is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=777", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode != 0:
        pytest.skip(f"a small disk needs the right to mount one: {made.stderr.strip()}")
    try:
        yield Disk(folder)
    finally:
        # Lazily: a process that is just ending may still have a file open there.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
