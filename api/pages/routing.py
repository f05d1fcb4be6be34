"""What happens to a request for a page: like a call of the API, but errors are pages, and who has not signed
in is asked to."""

from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse

from api.pages.rendering import base_of, render
from api.routing import Route
from core.errors import NotFound, ReasonError, Unauthorized


class PageRoute(Route):
    """A route whose answer is a page, also when something is wrong."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def shown(request: Request) -> Response:
            try:
                return await handle(request)
            except Unauthorized:
                path = request.scope["path"].lstrip("/")
                asked = f"{path}?{request.url.query}" if request.url.query else path
                return RedirectResponse(f"{base_of(request)}ui/sign-in?next={quote(asked)}", 303)
            except RequestValidationError:
                return _page(request, NotFound(f"There is no page {request.scope['path']}"))
            except ReasonError as error:
                return _page(request, error)

        return shown


def _page(request: Request, error: ReasonError) -> Response:
    return render(request, "error.html.j2", error.status, title=error.title, message=str(error))
