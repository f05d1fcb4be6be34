"""The size limit of request bodies."""

import contextlib
from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import problem
from core.errors import TooLarge


class _BodyTooLarge(Exception):
    pass


class BodyLimit:
    """Refuses bodies above a size with 413, by their header or while they come in.

    ``by_path`` has other sizes for some paths.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, by_path: Mapping[str, int] | None = None) -> None:
        self._app, self._max, self._by_path = app, max_bytes, by_path or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = self._by_path.get(scope["path"], self._max)
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > most:
            await self._refuse(scope, receive, send, most)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > most:
                raise _BodyTooLarge
            return message

        async def unless_refused(message: Message) -> None:
            # The framework takes the exception above for a body that it cannot parse, and answers 400.
            if received <= most:
                await send(message)

        with contextlib.suppress(_BodyTooLarge):
            await self._app(scope, counted, unless_refused)
        if received > most:
            await self._refuse(scope, receive, send, most)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, most: int) -> None:
        response = problem(413, TooLarge.title, f"The body is larger than {most} bytes.", TooLarge.code)
        await response(scope, receive, send)
