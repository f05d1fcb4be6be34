"""Base models: strict for what people send, lenient for what was stored."""

from typing import Any, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from core.spec.parts.forms import PLAIN

BY_SHAPE = Discriminator(lambda value: "<several>" if isinstance(value, list) else "<one>")
"""Discriminate one item from a list, so that an error is reported once, not once for each branch."""


def with_bare_references(value: object) -> object:
    """A text where a mapping with ``ref`` is meant, alone or in a list, as that mapping."""
    if isinstance(value, list):
        return [{"ref": item} if isinstance(item, str) else item for item in value]
    return {"ref": value} if isinstance(value, str) else value


BARE_REFERENCES = BeforeValidator(with_bare_references)
"""Of a field that may be written as the reference alone."""


def _tighten(schema: Any) -> None:
    """Give every text in a core schema the form `PLAIN`, and refuse ``true`` and ``"1"`` as numbers."""
    if isinstance(schema, list | tuple):
        for part in schema:
            _tighten(part)
    elif isinstance(schema, dict):
        match schema.get("type"):
            case "str":
                schema.setdefault("pattern", PLAIN)
            case "float" | "bool":
                schema["strict"] = True
            case "int" if not schema.get("strict"):
                strict = cast(CoreSchema, {**schema, "strict": True})
                schema.clear()
                schema.update(core_schema.no_info_before_validator_function(_without_fraction, strict))
                return
            case "union":
                # Labels become parts of an error's path: `core.spec.parse.describe` drops those in brackets.
                choices = (choice[0] if isinstance(choice, tuple) else choice for choice in schema["choices"])
                schema["choices"] = [(choice, "<choice>") for choice in choices]
        for part in schema.values():
            _tighten(part)


def _without_fraction(value: Any) -> Any:
    """Read ``64.0`` as ``64``, as JSON Schema does."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


class Strict(BaseModel):
    """Refuses unknown keys, infinities, values of another type, and texts that no database can store.

    The rules for texts and types hold for every field of every subclass: no field can forget them.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, validate_default=True)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        _tighten(schema)
        return schema


class Lenient(BaseModel):
    """Ignores unknown keys, so that an old reader never breaks on a newer writer."""

    model_config = ConfigDict(extra="ignore")
