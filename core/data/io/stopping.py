"""Work that can be stopped: a ``check_stop`` is called often, and raises when nobody wants the result."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def no_stop() -> None:
    """A ``check_stop`` that never stops."""


def checked(items: Iterable[Item], check_stop: Callable[[], None]) -> Iterator[Item]:
    """Yield the items, and call ``check_stop`` before each."""
    for item in items:
        check_stop()
        yield item
