"""Where a spec has references. Each kind lists the places once; here they are found and replaced."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel

Role = Literal["dataset", "model"]
Parts = tuple[str | int, ...]
"""The names of fields and the numbers of items on the way to a value."""


class ReferencePlace(NamedTuple):
    """The names of fields on the way to a reference, joined by dots, and what it names.

    ``*`` is every item of a list, or the value itself where one or several may be given. ``a|b`` is the field
    a, then the field b. Where ``ref`` is expected, the reference may be written alone.
    """

    path: str
    role: Role


class FoundReference(NamedTuple):
    """A reference, and the way to it."""

    parts: Parts
    text: str
    role: Role

    @property
    def path(self) -> str:
        return ".".join(map(str, self.parts))


def find_references(
    spec: BaseModel | Mapping[str, Any], places: Sequence[ReferencePlace]
) -> Iterator[FoundReference]:
    """All references, in the order of their places, and ``bm25`` where a model may be named. ``spec`` may be
    validated, or as somebody wrote it."""
    for place in places:
        for parts, text in _find(spec, place.path.split("."), ()):
            yield FoundReference(parts, text, place.role)


def _find(value: Any, names: Sequence[str], parts: Parts) -> Iterator[tuple[Parts, str]]:
    if isinstance(value, str):
        if all(name == "*" or "ref" in name.split("|") for name in names):
            yield parts, value
    elif names and names[0] == "*":
        several = isinstance(value, list)
        items = [((*parts, index), item) for index, item in enumerate(value)] if several else [(parts, value)]
        for place, item in items:
            yield from _find(item, names[1:], place)
    elif names:
        for name in names[0].split("|"):
            inner = value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)
            yield from _find(inner, names[1:], (*parts, name))


def replace_references(
    spec: dict[str, Any], places: Sequence[ReferencePlace], replace: Callable[[str], str]
) -> dict[str, Any]:
    """A copy of an unvalidated spec, with ``replace`` of each reference in its place."""
    for found in list(find_references(spec, places)):
        spec = _with_text(spec, found.parts, replace(found.text))
    return spec


def _with_text(value: Any, parts: Parts, text: str) -> Any:
    """A copy: what YAML's anchors share stays as it is elsewhere."""
    if not parts:
        return text
    made: Any = list(value) if isinstance(value, list) else dict(value)
    made[parts[0]] = _with_text(value[parts[0]], parts[1:], text)
    return made
