"""Bodies have a size."""

import contextlib

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import problem
from core.errors import TooLarge


class _BodyTooLarge(Exception):
    pass


class BodyLimit:
    """Refuses JSON bodies above a size with 413, by their header or while they come in."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app, self._max = app, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self._max:
            await self._refuse(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max:
                raise _BodyTooLarge
            return message

        async def unless_refused(message: Message) -> None:
            # The framework takes the exception above for a body that it cannot parse, and answers 400.
            if received <= self._max:
                await send(message)

        with contextlib.suppress(_BodyTooLarge):
            await self._app(scope, counted, unless_refused)
        if received > self._max:
            await self._refuse(scope, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = problem(413, TooLarge.title, f"At most {self._max} bytes are taken.", TooLarge.code)
        await response(scope, receive, send)
