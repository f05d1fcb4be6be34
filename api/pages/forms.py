"""A form for anything that has a JSON schema: one field for each setting, with its help, default and limits.

A field knows how its text becomes a value (``type``), and the script of the page makes the body from those
that were filled in. So what is left empty keeps its default, also a default of a later version.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import BaseModel

from core.spec.parts.reference_places import ReferencePlace

FieldType = Literal["text", "number", "auto", "choice", "yes", "lines", "json", "group"]
"""How the text of a field becomes a value.

``auto``: a number if it looks like one. ``lines``: a list, between commas. ``text``: JSON if it begins with
a bracket.
"""


@dataclass(frozen=True)
class Field:
    """A setting. ``path``: the names of fields on the way to it, joined by dots. ``suggests``: what may be
    named in it. ``fields``: of a group."""

    path: str
    label: str
    type: FieldType
    help: str = ""
    default: str = ""
    required: bool = False
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
    suggests: str = ""
    fields: tuple["Field", ...] = ()

    @property
    def id(self) -> str:
        return "field-" + self.path.replace(".", "-")


def fields_of(model: type[BaseModel], references: Sequence[ReferencePlace]) -> list[Field]:
    """The fields of a model, in its order. ``references``: which of them name datasets and models."""
    schema = model.model_json_schema()
    roles = {place.path.replace(".*", "").removesuffix(".ref"): place.role for place in references}
    return list(_fields(schema, schema.get("$defs", {}), "", roles))


def _fields(
    schema: Mapping[str, Any], models: Mapping[str, Any], path: str, roles: Mapping[str, str]
) -> list[Field]:
    required = set(schema.get("required", ()))
    found = []
    for name, described in schema.get("properties", {}).items():
        own = f"{path}.{name}" if path else name
        plain = _resolved(described, models)
        if "const" in plain:
            continue
        help_text = described.get("description") or plain.get("description") or ""
        found.append(_field(own, name, plain, models, roles, help_text, name in required))
    return found


def _field(
    path: str,
    name: str,
    plain: Mapping[str, Any],
    models: Mapping[str, Any],
    roles: Mapping[str, str],
    help_text: str,
    required: bool,
) -> Field:
    kind, default = _type_of(plain, models), plain.get("default")
    if kind == "group":
        below = _fields(plain, models, path, roles)
        # What a group needs is needed only if the group is.
        fields = tuple(below if required else (replace(field, required=False) for field in below))
        return Field(path, name, "group", help_text, fields=fields)
    return Field(
        path,
        name,
        kind,
        help_text,
        _shown(default),
        required,
        tuple(plain.get("enum", ())) if kind == "choice" else (),
        plain.get("minimum", plain.get("exclusiveMinimum")),
        plain.get("maximum", plain.get("exclusiveMaximum")),
        roles.get(path, ""),
    )


def _resolved(described: Mapping[str, Any], models: Mapping[str, Any]) -> dict[str, Any]:
    """A property as what it is beside null, with its reference followed."""
    found = dict(described)
    if "$ref" in found:
        found = {**models[found["$ref"].rpartition("/")[2]], **found}
    choices = [one for one in found.get("anyOf", ()) if one.get("type") != "null"]
    if len(choices) == 1:
        return {**_resolved(choices[0], models), **{name: found[name] for name in found if name != "anyOf"}}
    return found


_SIMPLE: dict[str, FieldType] = {"boolean": "yes", "number": "number", "integer": "number", "string": "text"}


def _type_of(plain: Mapping[str, Any], models: Mapping[str, Any]) -> FieldType:
    if "enum" in plain:
        return "choice"
    if "oneOf" in plain:  # a reference, with more to say of it, or several
        return "text"
    if "anyOf" in plain:
        kinds = {_resolved(one, models).get("type") for one in plain["anyOf"]}
        return "auto" if kinds <= {"string", "number", "integer", "null"} else "json"
    match plain.get("type"):
        case "object":
            return "group" if plain.get("properties") else "json"
        case "array":
            item = _resolved(plain.get("items", {}), models)
            is_reference = item.get("type") == "object" and "ref" in item.get("properties", {})
            return "lines" if is_reference or item.get("type") in _SIMPLE or "enum" in item else "json"
        case kind:
            return _SIMPLE.get(str(kind), "json")


def _shown(value: Any) -> str:
    """A value as somebody would type it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list) and all(isinstance(item, str | int | float) for item in value):
        return ", ".join(map(str, value))
    return json.dumps(value) if isinstance(value, dict | list) else str(value)


def values_of(fields: Sequence[Field], data: Mapping[str, Any]) -> dict[str, str]:
    """The texts of the fields for a spec, by path."""
    found: dict[str, str] = {}
    for field in fields:
        value = data.get(field.label)
        if value is None:
            continue
        if field.type == "group" and isinstance(value, Mapping):
            found |= values_of(field.fields, value)
        elif field.type == "text" and isinstance(value, Mapping) and value.keys() == {"ref"}:
            found[field.path] = str(value["ref"])
        else:
            found[field.path] = _shown(value)
    return found
