"""Work in a thread that ends when the client closes its connection."""

import threading
from collections.abc import Callable
from typing import TypeVar

import anyio
from anyio.to_thread import run_sync
from fastapi import Request

from core.errors import ClientGone

Result = TypeVar("Result")

_POLL_SECONDS = 0.25


async def while_connected(
    request: Request, work: Callable[[Callable[[], None]], Result], limiter: anyio.CapacityLimiter
) -> Result:
    """Run ``work(check_stop)`` in a thread of ``limiter``, whose body must have been read to its end.

    ``check_stop`` raises `ClientGone` once the client has closed the connection, or the server stops. Returns
    or raises only after the thread has ended, so that the caller may remove what the thread works on.
    """
    gone = threading.Event()
    results: list[Result] = []
    errors: list[Exception] = []

    def check_stop() -> None:
        if gone.is_set():
            raise ClientGone

    async def watch() -> None:
        try:
            while not await request.is_disconnected():
                await anyio.sleep(_POLL_SECONDS)
        finally:  # also when the server stops
            gone.set()
        group.cancel_scope.cancel()  # does not interrupt a thread, but the wait for one

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        try:
            results.append(await run_sync(work, check_stop, limiter=limiter))
        except Exception as error:  # noqa: BLE001 - raised below: a task group would wrap it in a group
            errors.append(error)
        group.cancel_scope.cancel()
    if errors:
        raise errors[0]
    if not results:
        raise ClientGone
    return results[0]
