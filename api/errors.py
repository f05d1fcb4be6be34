"""The only place where an error becomes a status and an `application/problem+json` body (RFC 9457)."""

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from core.errors import InvalidRequest, NotFound, Problem, ReasonError
from core.spec.parse import describe
from core.text import escaped_json

_log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"


class _ProblemResponse(JSONResponse):
    media_type = MEDIA_TYPE


def problem(
    status: int,
    title: str,
    detail: str,
    code: str,
    errors: list[Problem] | None = None,
    headers: Mapping[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> JSONResponse:
    body: dict[str, Any] = {
        "type": f"urn:reason:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        "errors": [vars(error) for error in errors or []],
        **(extra or {}),
    }
    # A message may quote what is wrong, also when it is no Unicode.
    return _ProblemResponse(escaped_json(body), status_code=status, headers=headers)


def respond(error: ReasonError) -> JSONResponse:
    """Return the response for one of the service's own errors."""
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return problem(error.status, error.title, str(error), error.code, error.problems, headers, error.extra)


def install(app: FastAPI) -> None:
    """Gives the application its handlers."""

    @app.exception_handler(ReasonError)
    def _known(_: Request, error: ReasonError) -> JSONResponse:
        return respond(error)

    @app.exception_handler(RequestValidationError)
    def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        # The first part says "body" or "query": nobody typed that.
        found = [describe({**item, "loc": item["loc"][1:]}) for item in error.errors()]
        found = [item if item.path else Problem("body", item.message) for item in found]
        detail = "; ".join(f"{item.path}: {item.message}" for item in found[:3])
        if any(item["loc"][0] == "path" for item in error.errors()):
            # An id without the form of an id: there can be nothing, or the fixed path of another route.
            allowed = _methods(request)
            if request.method not in allowed:
                return _wrong_method(allowed)
            return respond(NotFound(f"Not found: {request.scope['path']}: {detail}", found))
        return respond(InvalidRequest(detail, found))

    @app.exception_handler(HTTPException)
    def _http(request: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == 404:
            return respond(NotFound(f"Not found: {request.scope['path']}"))
        if error.status_code == 405:
            return _wrong_method(_methods(request) or (error.headers or {}).get("Allow", "").split(", "))
        return problem(
            error.status_code, str(error.detail), str(error.detail), "http_error", headers=error.headers
        )

    @app.exception_handler(Exception)
    def _unforeseen(request: Request, error: Exception) -> JSONResponse:
        _log.error("%s %s failed", request.method, request.scope["path"], exc_info=error)
        return problem(
            500, ReasonError.title, "Internal error of the server; its log has the details.", ReasonError.code
        )


def _methods(request: Request) -> list[str]:
    """The methods of the request's path. A fixed path (/jobs/estimate) goes before one with an id."""
    path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    routes: list[APIRoute] = [route for route in request.app.state.routes if route.path_regex.match(path)]
    fixed = [route for route in routes if not route.param_convertors]
    return sorted({method for route in fixed or routes for method in route.methods or ()})


def _wrong_method(allowed: list[str]) -> JSONResponse:
    names = ", ".join(allowed)
    message = f"This path accepts only {names}."
    return problem(405, "Method not allowed", message, "method_not_allowed", headers={"Allow": names})
