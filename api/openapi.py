"""Complete the schema: every status that a call can give, and the body of errors.

What a route declares itself (a 409, say) keeps its description; the rest follows from what the route takes.
"""

from typing import Any

from fastapi import FastAPI

from api.errors import MEDIA_TYPE

_METHODS = ("get", "put", "post", "delete", "patch", "head", "options")

_PROBLEM = {
    "type": "object",
    "title": "Problem",
    "description": "An error (RFC 9457).",
    "required": ["type", "title", "status", "detail", "code", "errors"],
    "properties": {
        "type": {"type": "string", "examples": ["urn:reason:invalid_request"]},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string", "description": "A message for people."},
        "code": {
            "type": "string",
            "description": "The error code, for programs.",
            "examples": ["invalid_request"],
        },
        "errors": {
            "type": "array",
            "description": "Each error of the request, with the path of the field.",
            "items": {
                "type": "object",
                "required": ["path", "message"],
                "properties": {
                    "path": {"type": "string", "examples": ["loss.temperature"]},
                    "message": {"type": "string"},
                },
            },
        },
    },
}

_DESCRIPTIONS = {
    "400": "An unknown query parameter, or another invalid request.",
    "401": "The API key is missing, unknown or revoked.",
    "403": "The API key does not have the scope that this call needs.",
    "404": "Not found, or not visible to this key.",
    "413": "The body is larger than REASON_MAX_BODY_BYTES.",
    "422": "The request is not valid.",
    "429": "Too many wrong API keys from this address.",
    "500": "Internal error of the server.",
    "503": "The database or the artifact storage is not reachable: retry later.",
}

_RETRY_AFTER = {
    "Retry-After": {
        "description": "Seconds to wait before a retry.",
        "schema": {"type": "integer", "minimum": 1},
    }
}
_HEADERS: dict[str, dict[str, Any]] = {
    "401": {"WWW-Authenticate": {"schema": {"type": "string"}}},
    "429": _RETRY_AFTER,
    "503": _RETRY_AFTER,
}


def install(app: FastAPI) -> None:
    """Completes the application's schema when it is first asked for."""
    plain = app.openapi

    def complete() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = plain()
            _complete(schema)
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = complete  # type: ignore[method-assign]


def _complete(schema: dict[str, Any]) -> None:
    schemas = schema.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas["Problem"] = _PROBLEM
    for path in schema["paths"].values():
        for method in _METHODS:
            if method in path:
                _declare(path[method])


def _declare(operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    for status in _statuses(operation):
        responses.setdefault(status, {})
    for status, response in responses.items():
        if status < "400" or ("application/json" in response.get("content", {}) and status != "422"):
            continue
        own = response.get("description", "")
        generic = own in ("", "Validation Error")
        response["description"] = _DESCRIPTIONS.get(status, own) if generic else own
        response["content"] = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
        if headers := _HEADERS.get(status):
            response["headers"] = headers
    operation["responses"] = dict(sorted(responses.items()))


def _statuses(operation: dict[str, Any]) -> set[str]:
    """What the call can give besides its success, by what it takes."""
    found = {"400", "500"}
    places = {parameter["in"] for parameter in operation.get("parameters", ())}
    if operation.get("security"):
        found |= {"401", "403", "429", "503"}
    if "path" in places:
        found.add("404")
    if places & {"query", "header"}:
        found.add("422")
    if "requestBody" in operation:
        found |= {"413", "422"}
    return found
