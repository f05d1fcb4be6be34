"""How a dataset's rows are read, kept beside them: what the sender said, no job needs to say again.

The file is part of the dataset's content: the same rows sent with other columns are another version.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from core.data.rows.reading import Reading
from core.errors import BadData
from core.spec.parts.rows import READING, RowOptions

_Model = TypeVar("_Model", bound=BaseModel)
_KEPT = ("columns", "encoding")


def write_reading(folder: Path, options: RowOptions) -> dict[str, object]:
    """Keep what ``options`` say of columns and encoding, and return it; no file where they say nothing."""
    told = _told(options)
    if told:
        (folder / READING).write_text(options.model_dump_json(include=set(told)), encoding="utf-8")
    return told


def read_reading(folder: Path) -> RowOptions | None:
    """What was kept, or None. Raises `BadData` for a file that is something else."""
    path = folder / READING
    if not path.is_file():
        return None
    try:
        return RowOptions.model_validate_json(path.read_bytes())
    except (ValidationError, UnicodeDecodeError) as error:
        raise BadData(f"{READING} of the dataset cannot be used: {error}") from error


def kept_reading(
    reference: str, folder: Path | None, split: str | None, tell: Callable[[str], None]
) -> Reading:
    """How a dataset is read for which a spec can say nothing: as it was sent. ``tell`` gets a sentence."""
    kept = read_reading(folder) if folder is not None else None
    if kept is None:
        return Reading(split)
    _tell(reference, _told(kept), tell)
    return Reading.of(kept, split)


def with_kept_readings(
    spec: _Model, place: Callable[[str], Path | None], tell: Callable[[str], None]
) -> _Model:
    """The spec in which every source that says nothing of a file's columns or encoding says what was kept.

    ``place`` tells where a reference lies on disk, None for one that does not yet. ``tell`` gets a sentence
    for each source that is read so. What the spec says itself counts.
    """
    changed = {name: new for name, value in spec if (new := _in_value(value, place, tell)) is not value}
    spec = spec.model_copy(update=changed) if changed else spec
    if not isinstance(spec, RowOptions):
        return spec
    reference = getattr(spec, "ref", None)
    folder = place(reference) if isinstance(reference, str) else None
    kept = read_reading(folder) if folder is not None else None
    if kept is None:
        return spec
    said = _told(spec)
    added = {name: value for name, value in _told(kept).items() if name not in said}
    _tell(str(reference), added, tell)
    return spec.model_copy(update=added)


def _in_value(value: object, place: Callable[[str], Path | None], tell: Callable[[str], None]) -> object:
    if isinstance(value, BaseModel):
        return with_kept_readings(value, place, tell)
    if isinstance(value, list):
        parts = [_in_value(part, place, tell) for part in value]
        return parts if any(new is not old for new, old in zip(parts, value, strict=True)) else value
    return value


def _tell(reference: str, options: dict[str, object], tell: Callable[[str], None]) -> None:
    if options:
        how = ", ".join(f"{name} {_line(value)}" for name, value in options.items())
        tell(f"{reference}: read as it was sent, with {how}.")


def _told(options: RowOptions) -> dict[str, object]:
    return {name: value for name in _KEPT if (value := getattr(options, name))}


def _line(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{role}: {name}" for role, name in value.items()) + "}"
    return str(value)
