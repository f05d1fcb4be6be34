"""Thinning a curve for a plot."""

from collections.abc import Sequence
from datetime import datetime

Point = tuple[int, float | None, datetime]
"""(step, value, time)"""


def downsample(points: Sequence[Point], max_points: int) -> list[Point]:
    """At most ``max_points`` points: the first, the last, and each bucket's lowest and highest.

    A spike of one step stays visible, which averaging or taking every n-th would lose. A point that is not
    a number counts as an extreme.
    """
    if len(points) <= max_points:
        return list(points)
    if max_points < 4:
        return [points[0], points[-1]]
    inner = range(1, len(points) - 1)
    buckets = (max_points - 2) // 2
    kept = {0, len(points) - 1}
    for bucket in range(buckets):
        chosen = inner[bucket * len(inner) // buckets : (bucket + 1) * len(inner) // buckets]
        if chosen:
            kept.add(min(chosen, key=lambda index: _value(points[index], float("-inf"))))
            kept.add(max(chosen, key=lambda index: _value(points[index], float("-inf"))))
    return [points[index] for index in sorted(kept)]


def _value(point: Point, missing: float) -> float:
    return missing if point[1] is None else point[1]
