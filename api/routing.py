"""What happens to every request before its route: the key, the names of the query, the JSON of the body.

In this order: a caller without a key learns nothing about its query or its body, and its body is not read.
"""

import difflib
import json
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from email.message import Message
from typing import Any, Never, get_args, get_origin

from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from api.deps import Key
from core.errors import BadRequest, InvalidRequest, Problem
from core.store.fleet import SCOPES


class Route(APIRoute):
    """A route that authenticates first, and refuses query parameters that it does not know."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        dependants = list(_flat(self.dependant))
        key = _strongest([found.call for found in dependants if isinstance(found.call, Key)])
        params = {param.alias: param for found in dependants for param in found.query_params}
        known = sorted(params)
        several = {name for name, param in params.items() if _takes_several(param.field_info.annotation)}

        async def checked(request: Request) -> Response:
            request.state.principal = None
            if key is not None and not (key.unless and getattr(request.app.state.settings, key.unless)):
                authenticate = request.app.state.authenticator.authenticate
                request.state.principal = await run_in_threadpool(authenticate, request, key.scope)
            _check_query(request, known, several)
            if self.body_field is not None:
                request = _JsonRequest(request.scope, request.receive)
                await request.json()
            return await handle(request)

        return checked


def _takes_several(annotation: Any) -> bool:
    """Whether a parameter's type is a list, or one of several that it may be."""
    return any(get_origin(kind) is list for kind in (annotation, *get_args(annotation)))


def _strongest(keys: list[Key]) -> Key | None:
    """The key that a route needs: a route that changes what it has looked up needs more than to look."""
    return max(keys, key=lambda key: SCOPES.index(key.scope), default=None)


def _flat(dependant: Dependant) -> Iterator[Dependant]:
    yield dependant
    for part in dependant.dependencies:
        yield from _flat(part)


# -- the query ---------------------------------------------------------------------------------------


def _check_query(request: Request, known: list[str], several: set[str]) -> None:
    counts = Counter(name for name, _ in request.query_params.multi_items())
    if twice := [name for name, count in counts.items() if count > 1 and name not in several]:
        problems = [Problem(name, "is given more than once") for name in twice]
        raise BadRequest(f"{twice[0]}: is given more than once", problems)
    unknown = [name for name in dict.fromkeys(request.query_params.keys()) if name not in known]
    if unknown:
        problems = [Problem(name, _unknown(name, known)) for name in unknown]
        raise BadRequest("; ".join(f"{found.path}: {found.message}" for found in problems[:3]), problems)


def _unknown(name: str, known: list[str]) -> str:
    if not known:
        return "unknown query parameter; this call has none"
    near = difflib.get_close_matches(name, known, n=1)
    return f"unknown query parameter{f'; did you mean {near[0]}?' if near else ''}; known: {', '.join(known)}"


# -- the body ----------------------------------------------------------------------------------------


class _JsonRequest(Request):
    """A request whose JSON is read strictly, once."""

    async def json(self) -> Any:
        """The body's value. Raises `InvalidRequest`."""
        if not hasattr(self, "_json"):
            self._json = _parse(await self.body(), self.headers.get("content-type"))
        return self._json


def _parse(body: bytes, content_type: str | None) -> Any:
    if not body:
        _refuse("is empty; it must be JSON")
    if not _is_json(content_type):
        said = f"is {content_type}" if content_type else "is missing"
        message = f"{said}, but the body must be JSON: send `Content-Type: application/json`"
        raise InvalidRequest(f"Content-Type {message}", [Problem("Content-Type", message)])
    try:
        return json.loads(body, object_pairs_hook=_without_repeats, parse_constant=_not_json)
    except json.JSONDecodeError as error:
        _refuse(f"is not JSON: {error.msg} (line {error.lineno}, column {error.colno})")
    except UnicodeDecodeError:
        _refuse("is not JSON: it is not valid UTF-8")
    except RecursionError:
        _refuse("is nested too deeply")
    except ValueError as error:  # a number of too many digits
        _refuse(f"is not JSON: {error}")


def _is_json(content_type: str | None) -> bool:
    message = Message()
    message["content-type"] = content_type or "text/plain"
    subtype = message.get_content_subtype()
    return message.get_content_maintype() == "application" and (
        subtype == "json" or subtype.endswith("+json")
    )


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse an object with a name twice: one of its values would be lost without a word."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidRequest(f"{twice}: is given more than once", [Problem(twice, "is given more than once")])
    return found


def _not_json(name: str) -> Never:
    _refuse(f"is not JSON: {name} is not a JSON number")


def _refuse(message: str) -> Never:
    raise InvalidRequest(f"The body {message}", [Problem("body", message)])
