"""Where the boxes of a graph stand: in columns, each to the right of all that it needs."""

from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

Name = TypeVar("Name", bound=Hashable)

_WIDTH, _HEIGHT = 190, 46
_APART, _BELOW = 46, 14
_EDGE = 2


@dataclass(frozen=True)
class Box(Generic[Name]):
    """``x`` and ``y`` are of its upper left corner, in pixels."""

    name: Name
    x: int
    y: int
    width: int = _WIDTH
    height: int = _HEIGHT


@dataclass(frozen=True)
class Drawing(Generic[Name]):
    """``lines``: paths of SVG."""

    boxes: list[Box[Name]]
    lines: list[str]
    width: int
    height: int


def draw(needs: Mapping[Name, Collection[Name]]) -> Drawing[Name]:
    """Boxes by name, in the order of ``needs`` within a column. To names that are needed and not there, and
    in circles, there are no lines."""
    columns: dict[Name, int] = {}

    def column(name: Name, above: frozenset[Name]) -> int:
        if name not in columns:
            known = [one for one in needs[name] if one in needs and one not in above]
            columns[name] = 1 + max((column(one, above | {name}) for one in known), default=-1)
        return columns[name]

    for name in needs:
        column(name, frozenset({name}))
    rows: dict[int, int] = {}
    boxes: dict[Name, Box[Name]] = {}
    for name in sorted(needs, key=lambda name: columns[name]):
        place = columns[name]
        row = rows[place] = rows.get(place, -1) + 1
        boxes[name] = Box(name, _EDGE + place * (_WIDTH + _APART), _EDGE + row * (_HEIGHT + _BELOW))
    lines = [
        _line(boxes[one], boxes[name])
        for name in needs
        for one in needs[name]
        if one in boxes and columns[one] < columns[name]
    ]
    return Drawing(
        list(boxes.values()),
        lines,
        (max(columns.values(), default=0) + 1) * (_WIDTH + _APART) - _APART + 2 * _EDGE,
        (max(rows.values(), default=0) + 1) * (_HEIGHT + _BELOW) - _BELOW + 2 * _EDGE,
    )


def _line(start: Box[Name], end: Box[Name]) -> str:
    x, y = start.x + start.width, start.y + start.height // 2
    to_x, to_y = end.x, end.y + end.height // 2
    middle = (x + to_x) // 2
    return f"M{x},{y} C{middle},{y} {middle},{to_y} {to_x},{to_y}"
