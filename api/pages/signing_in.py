"""Sign in with an API key, and out. The cookie stands for the key; no script can read it."""

from typing import Annotated
from urllib.parse import parse_qs

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse

from api.auth import SESSION_COOKIE, Authenticator
from api.deps import StoreDep
from api.pages.rendering import base_of, render
from core.errors import ReasonError
from core.store.sessions import LASTS_SECONDS

router = APIRouter(include_in_schema=False)

_LONGEST = 10_000
"""Bytes of a form."""

Next = Annotated[str, Query(alias="next", max_length=2000)]


@router.get("/ui/sign-in")
def form(request: Request, store: StoreDep, asked: Next = "") -> Response:
    if not store.keys.any_active():
        return RedirectResponse(base_of(request), 303)
    return render(request, "sign_in.html.j2", asked=_inside(asked), problem="")


@router.post("/ui/sign-in")
async def sign_in(request: Request, store: StoreDep) -> Response:
    body = await request.body()
    fields = parse_qs(body[:_LONGEST].decode("utf-8", "replace"))
    secret, asked = fields.get("key", [""])[0].strip(), _inside(fields.get("next", [""])[0])
    authenticator: Authenticator = request.app.state.authenticator
    try:
        key = await run_in_threadpool(authenticator.check_form, request, secret)
    except ReasonError as error:
        return render(request, "sign_in.html.j2", error.status, asked=asked, problem=str(error))
    token = await run_in_threadpool(store.sessions.open, key.id)
    answer = RedirectResponse(base_of(request) + asked, 303)
    answer.set_cookie(
        SESSION_COOKIE,
        token,
        max_age=LASTS_SECONDS,
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
        path=_place(request),
    )
    return answer


@router.post("/ui/sign-out")
def sign_out(request: Request, store: StoreDep) -> Response:
    """Another site can sign nobody out: browsers do not send it the cookie (SameSite)."""
    if token := request.cookies.get(SESSION_COOKIE):
        store.sessions.close(token)
    answer = RedirectResponse(f"{base_of(request)}ui/sign-in", 303)
    answer.delete_cookie(SESSION_COOKIE, path=_place(request))
    return answer


def _place(request: Request) -> str:
    """The path below which browsers send the cookie: the service's own, where a proxy has given it one."""
    return request.scope.get("root_path", "") or "/"


def _inside(path: str) -> str:
    """A path of this service, relative to its root; nothing for what a browser would take for a host."""
    plain = path.lstrip("/")
    return "" if "\\" in plain or ":" in plain.partition("?")[0].partition("/")[0] else plain
