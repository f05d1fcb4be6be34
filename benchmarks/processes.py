"""Commands in processes of their own, with the kernel's word on their peak memory (``ru_maxrss``)."""

import os
import subprocess
import time
from collections.abc import Sequence


def measure(command: Sequence[str]) -> tuple[float, int]:
    """(seconds, peak bytes) of a command. Raises `RuntimeError` if it fails."""
    begun = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{' '.join(command)} ended with status {status}")
    return time.monotonic() - begun, usage.ru_maxrss * 1024
