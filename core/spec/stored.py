"""Specs as they were stored, perhaps by an older version of this program.

What people send is read strictly (`core.spec.parse`). What was stored is read by its version: translated step
by step where a field was renamed or changed its meaning, and without fields that are no longer known, which
are named, so that whoever runs the job can say so.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from core.errors import InvalidRequest
from core.spec.parse import SPEC_VERSION, AnySpec, refusal, validate_spec

TRANSLATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""By version: a stored spec of it into one of the next. A renamed field needs an entry here, and
`SPEC_VERSION` a higher number."""


@dataclass(frozen=True)
class StoredSpec:
    """``left_out``: paths of fields that this version does not know."""

    spec: AnySpec
    left_out: tuple[str, ...] = ()


def read_stored_spec(data: Mapping[str, Any], version: int) -> StoredSpec:
    """Read a spec that was stored as ``version``. Raises `InvalidRequest` for what cannot be understood."""
    if version > SPEC_VERSION:
        raise InvalidRequest(
            f"The spec was stored by a newer version of this program (spec version {version}; this one reads "
            f"versions up to {SPEC_VERSION}). Upgrade this program."
        )
    found = deepcopy(dict(data))
    for step in range(version, SPEC_VERSION):
        found = TRANSLATIONS[step](found)
    left_out: list[str] = []
    while True:
        try:
            return StoredSpec(validate_spec(found), tuple(left_out))
        except ValidationError as error:
            unknown = [_path(item["loc"]) for item in error.errors() if item["type"] == "extra_forbidden"]
            if not unknown:
                raise refusal(error) from error
            for path in unknown:
                _remove(found, path)
                left_out.append(".".join(map(str, path)))


def _path(location: Sequence[str | int]) -> tuple[str | int, ...]:
    """Of one of pydantic's findings, without the tags of unions, which stand in angle brackets."""
    return tuple(part for part in location if not (isinstance(part, str) and part.startswith("<")))


def _remove(data: Any, path: Sequence[str | int]) -> None:
    for part in path[:-1]:
        data = data[part]
    del data[path[-1]]
