"""The only place where an error becomes a status and an `application/problem+json` body (RFC 9457)."""

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from core.errors import InvalidRequest, NotFound, Problem, ReasonError, Unavailable
from core.spec.parse import describe
from core.text import escaped_json

_log = logging.getLogger(__name__)


def problem(
    status: int,
    title: str,
    detail: str,
    code: str,
    errors: list[Problem] | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    body: dict[str, Any] = {
        "type": f"urn:reason:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        "errors": [vars(error) for error in errors or []],
    }
    return JSONResponse(
        escaped_json(body),  # a message may quote what is wrong, also when it is no Unicode
        status_code=status,
        media_type="application/problem+json",
        headers=headers,
    )


def install(app: FastAPI) -> None:
    """Gives the application its handlers."""

    @app.exception_handler(ReasonError)
    def _known(_: Request, error: ReasonError) -> JSONResponse:
        headers = {"Retry-After": "2"} if isinstance(error, Unavailable) else {}
        if error.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        problems = error.problems if isinstance(error, InvalidRequest) else []
        return problem(error.status, error.title, str(error), error.code, problems, headers)

    @app.exception_handler(RequestValidationError)
    def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        # The first part says "body" or "query": nobody typed that.
        found = [describe({**item, "loc": item["loc"][1:]}) for item in error.errors()]
        detail = "; ".join(f"{item.path or 'body'}: {item.message}" for item in found[:3])
        return problem(422, InvalidRequest.title, detail, InvalidRequest.code, found)

    @app.exception_handler(HTTPException)
    def _http(request: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == 404:
            return problem(404, NotFound.title, f"There is nothing at {request.url.path}", NotFound.code)
        return problem(
            error.status_code, str(error.detail), str(error.detail), "http_error", headers=error.headers
        )

    @app.exception_handler(Exception)
    def _unforeseen(request: Request, error: Exception) -> JSONResponse:
        _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return problem(
            500, ReasonError.title, "The server made a mistake; its log has the details.", ReasonError.code
        )
