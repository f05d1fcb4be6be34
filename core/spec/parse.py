"""The door through which specs come in."""

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from core.errors import InvalidRequest, Problem
from core.spec.train import TrainSpec

SPEC_VERSION = 1
"""Stored beside each spec; raised when an old spec needs translating."""

AnyJobSpec = TrainSpec
"""Every kind of job; a union told apart by ``kind`` as soon as there are two."""

_ADAPTER: TypeAdapter[TrainSpec] = TypeAdapter(AnyJobSpec)


def describe(item: Mapping[str, Any]) -> Problem:
    """One of pydantic's findings as a path and a sentence."""
    # Tags of unions stand in angle brackets: no part of what the user wrote.
    path = ".".join(str(part) for part in item["loc"] if not str(part).startswith("<"))
    if item["type"] == "extra_forbidden":
        return Problem(path, "unknown field")
    return Problem(path, item["msg"].removeprefix("Value error, "))


def problems_of(error: ValidationError) -> list[Problem]:
    """All of pydantic's findings."""
    return [describe(dict(item)) for item in error.errors(include_url=False)]


def parse_spec(data: Any) -> TrainSpec:
    """Validates what somebody sent. Raises `InvalidRequest` with one problem a fault."""
    try:
        return _ADAPTER.validate_python(data)
    except ValidationError as error:
        problems = problems_of(error)
        first = f"{problems[0].path}: {problems[0].message}" if problems else str(error)
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise InvalidRequest(f"The job spec does not validate: {first}{more}", problems) from error
