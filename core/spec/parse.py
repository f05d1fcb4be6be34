"""Validation of job specs that people send."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, get_args

from pydantic import BaseModel, Discriminator, Tag, TypeAdapter, ValidationError

from core.errors import InvalidRequest, Problem
from core.spec.embed import EmbedSpec
from core.spec.evaluate import EvaluateSpec
from core.spec.export import ExportSpec
from core.spec.job import JobSpec
from core.spec.mine import MineSpec
from core.spec.parts.forms import describe_form
from core.spec.prepare import PrepareSpec
from core.spec.train import TrainSpec

SPEC_VERSION = 1
"""Stored beside each spec; raised when an old spec needs translating."""

SPEC_BY_KIND: dict[str, type[JobSpec]] = {
    "prepare": PrepareSpec,
    "mine": MineSpec,
    "train": TrainSpec,
    "evaluate": EvaluateSpec,
    "embed": EmbedSpec,
    "export": ExportSpec,
}

KINDS = tuple(SPEC_BY_KIND)


def _kind_of(value: Any) -> str:
    kind = value.get("kind") if isinstance(value, Mapping) else getattr(value, "kind", None)
    return f"<{kind}>"


AnyJobSpec = Annotated[
    Annotated[TrainSpec, Tag("<train>")]
    | Annotated[PrepareSpec, Tag("<prepare>")]
    | Annotated[MineSpec, Tag("<mine>")]
    | Annotated[EvaluateSpec, Tag("<evaluate>")]
    | Annotated[EmbedSpec, Tag("<embed>")]
    | Annotated[ExportSpec, Tag("<export>")],
    Discriminator(_kind_of),
]
"""Every kind of job, told apart by ``kind``."""

AnySpec = TrainSpec | PrepareSpec | MineSpec | EvaluateSpec | EmbedSpec | ExportSpec

_ADAPTER: TypeAdapter[AnySpec] = TypeAdapter(AnyJobSpec)


def _names_beside(location: Sequence[str | int], root: type[BaseModel] | None) -> list[str]:
    """The names of the fields that the last part of a path could have meant: a path in a ``root``, or in a
    job spec."""
    kinds: dict[str | int, type[BaseModel]] = {f"<{kind}>": model for kind, model in SPEC_BY_KIND.items()}
    start = next((place for place, part in enumerate(location) if part in kinds), -1)
    model = kinds[location[start]] if start >= 0 else root
    if model is None:
        return []
    models = [model]
    for part in location[start + 1 : -1]:
        if isinstance(part, str) and not part.startswith("<"):
            fields = [model.model_fields[part] for model in models if part in model.model_fields]
            models = [found for field in fields for found in _models_in(field.annotation)]
    return [name for model in models for name in model.model_fields]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models that a field's annotation mentions, within unions, lists and ``Annotated``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in get_args(annotation) for found in _models_in(part)]


def describe(item: Mapping[str, Any], root: type[BaseModel] | None = None) -> Problem:
    """One of pydantic's findings as a path and a sentence. ``root``: what was validated, if not a job
    spec."""
    # Tags of unions stand in angle brackets, and "[key]" follows the key that it is about.
    parts = [str(part) for part in item["loc"] if part != "[key]"]
    path = ".".join(part for part in parts if not part.startswith("<"))
    if item["type"].startswith("union_tag") and not path:
        told = f"must be one of {', '.join(KINDS)}"
        if isinstance(item.get("input"), Mapping) and "dataset_name" in item["input"]:
            told += (
                "; the flat form (dataset_name, model_name, ...) is a pipeline: use reason pipeline submit, "
                "or POST /pipelines"
            )
        return Problem("kind", told)
    if item["type"] == "extra_forbidden":
        near = difflib.get_close_matches(parts[-1], _names_beside(item["loc"], root), 1) if parts else []
        return Problem(path, f"unknown field; did you mean {near[0]}?" if near else "unknown field")
    if item["type"] == "too_short":
        least = item["ctx"]["min_length"]
        return Problem(path, "must not be empty" if least == 1 else f"must have at least {least} items")
    if item["type"] == "too_long":
        return Problem(path, f"must have at most {item['ctx']['max_length']} items")
    if item["type"] == "string_unicode":
        return Problem(path, "is not valid Unicode: it has an unpaired surrogate")
    if item["type"] == "string_pattern_mismatch":
        return Problem(path, describe_form(item["ctx"]["pattern"]))
    return Problem(path, item["msg"].removeprefix("Value error, "))


def problems_of(error: ValidationError, root: type[BaseModel] | None = None) -> list[Problem]:
    """All of pydantic's findings. ``root``: see `describe`."""
    return [describe(dict(item), root) for item in error.errors(include_url=False)]


def validate_spec(data: Any) -> AnySpec:
    """Raises pydantic's `ValidationError`."""
    return _ADAPTER.validate_python(data)


def parse_spec(data: Any) -> AnySpec:
    """Validates what somebody sent. Raises `InvalidRequest` with one problem a fault."""
    try:
        return validate_spec(data)
    except ValidationError as error:
        raise refusal(error) from error


def refusal(error: ValidationError) -> InvalidRequest:
    """The answer to a spec that does not validate, with one problem a fault."""
    problems = problems_of(error)
    named = [f"{found.path}: {found.message}" if found.path else found.message for found in problems]
    first = named[0] if named else str(error)
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return InvalidRequest(f"The job spec does not validate: {first}{more}", problems)
