"""Processes that must not outlive the one that started them."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_LIBRARY = ctypes.CDLL(None)  # here, and not in a process that was forked from one with threads


def end_with_parent(number: signal.Signals = signal.SIGKILL) -> None:
    """From here on the kernel sends this process a signal when the one that started it ends, however that
    ends.

    Linux alone has this; elsewhere nothing happens.
    """
    if sys.platform != "linux":
        return
    parent = os.getppid()
    _LIBRARY.prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent or parent == 1:  # it has ended meanwhile
        os.kill(os.getpid(), number)
