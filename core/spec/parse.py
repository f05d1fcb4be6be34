"""The door through which specs come in."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Discriminator, Tag, TypeAdapter, ValidationError

from core.errors import InvalidRequest, Problem
from core.spec.embed import EmbedSpec
from core.spec.evaluate import EvaluateSpec
from core.spec.mine import MineSpec
from core.spec.parts.forms import describe_form
from core.spec.prepare import PrepareSpec
from core.spec.train import TrainSpec

SPEC_VERSION = 1
"""Stored beside each spec; raised when an old spec needs translating."""

KINDS = ("prepare", "mine", "train", "evaluate", "embed")


def _kind_of(value: Any) -> str:
    kind = value.get("kind") if isinstance(value, Mapping) else getattr(value, "kind", None)
    return f"<{kind}>"


AnyJobSpec = Annotated[
    Annotated[TrainSpec, Tag("<train>")]
    | Annotated[PrepareSpec, Tag("<prepare>")]
    | Annotated[MineSpec, Tag("<mine>")]
    | Annotated[EvaluateSpec, Tag("<evaluate>")]
    | Annotated[EmbedSpec, Tag("<embed>")],
    Discriminator(_kind_of),
]
"""Every kind of job, told apart by ``kind``."""

AnySpec = TrainSpec | PrepareSpec | MineSpec | EvaluateSpec | EmbedSpec

_ADAPTER: TypeAdapter[AnySpec] = TypeAdapter(AnyJobSpec)


def describe(item: Mapping[str, Any]) -> Problem:
    """One of pydantic's findings as a path and a sentence."""
    # Tags of unions stand in angle brackets, and "[key]" follows the key that it is about.
    parts = [str(part) for part in item["loc"] if part != "[key]"]
    path = ".".join(part for part in parts if not part.startswith("<"))
    if item["type"].startswith("union_tag") and not path:
        return Problem("kind", f"must be one of {', '.join(KINDS)}")
    if item["type"] == "extra_forbidden":
        return Problem(path, "unknown field")
    if item["type"] == "too_short":
        return Problem(path, f"needs at least {item['ctx']['min_length']}")
    if item["type"] == "too_long":
        return Problem(path, f"has more than {item['ctx']['max_length']}")
    if item["type"] == "string_unicode":
        return Problem(path, "is not valid Unicode: it has an unpaired surrogate")
    if item["type"] == "string_pattern_mismatch":
        return Problem(path, describe_form(item["ctx"]["pattern"]))
    return Problem(path, item["msg"].removeprefix("Value error, "))


def problems_of(error: ValidationError) -> list[Problem]:
    """All of pydantic's findings."""
    return [describe(dict(item)) for item in error.errors(include_url=False)]


def validate_spec(data: Any) -> AnySpec:
    """Raises pydantic's `ValidationError`."""
    return _ADAPTER.validate_python(data)


def parse_spec(data: Any) -> AnySpec:
    """Validates what somebody sent. Raises `InvalidRequest` with one problem a fault."""
    try:
        return validate_spec(data)
    except ValidationError as error:
        problems = problems_of(error)
        named = [f"{found.path}: {found.message}" if found.path else found.message for found in problems]
        first = named[0] if named else str(error)
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise InvalidRequest(f"The job spec does not validate: {first}{more}", problems) from error
