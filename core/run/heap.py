"""The C library's heap."""

import ctypes
from collections.abc import Callable
from typing import cast


def _find_malloc_trim() -> Callable[[int], int] | None:
    try:
        return cast(Callable[[int], int], ctypes.CDLL(None).malloc_trim)
    except (OSError, AttributeError):
        return None  # another C library: nothing to be done, and nothing known to be needed


_MALLOC_TRIM = _find_malloc_trim()


def give_back_freed_memory() -> None:
    """What the C library has freed goes back to the system.

    glibc finds no use for many of the holes that aligned tensors leave: without this, a step of 48
    micro-batches of which only one is kept at a time held 4.9 GB instead of 1.8. It takes milliseconds.
    """
    if _MALLOC_TRIM is not None:
        _MALLOC_TRIM(0)
