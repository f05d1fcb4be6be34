"""What the rows of a dataset are like, in numbers that need no memory, and the first few to look at."""

import json
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

from core.text import escaped_json

PREVIEW = ".preview.json"
"""In every dataset's folder: its first rows, by split."""

PREVIEW_ROWS = 20
PREVIEW_SPLITS = 100
"""Of a dataset with more splits, the first ones are in the preview."""

_SHOWN_CHARACTERS = 1000
_SHOWN_ITEMS = 20
_CATEGORIES = 100


@dataclass
class Statistics:
    """Lengths by role in characters, negatives, difficulties, categories.

    ``sampled``: the lengths of passages are those of so many documents {documents, of}; None: of all.
    ``queries``: about how many queries can be made of these documents, by the default weights of the kinds.
    """

    lengths: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    categories: Counter[str] = field(default_factory=Counter)
    difficulty: Counter[str] = field(default_factory=Counter)
    sampled: dict[str, int] | None = None
    queries: float = 0.0

    def page(self) -> dict[str, Any]:
        """Mean, percentiles and longest by role; negatives a row; rows by category, the most common ones."""
        rows = max(sum(self.lengths["query"].values()), 1)
        negatives = sum(self.lengths["negative"].values())
        return {
            "characters": {role: describe(found) for role, found in self.lengths.items() if found},
            "negatives_per_row": round(negatives / rows, 2),
            "difficulty": dict(sorted(self.difficulty.items())),
            "categories": {name: rows for name, rows in self.categories.most_common(_CATEGORIES) if name},
            **({"sampled": self.sampled} if self.sampled else {}),
            **({"possible_queries": round(self.queries)} if self.queries else {}),
        }


def describe(lengths: Mapping[int, int]) -> dict[str, float]:
    """Of a histogram: mean, percentiles (the least length that so many do not exceed) and the longest."""
    values = sorted(lengths)
    below = list(accumulate(lengths[value] for value in values))
    found = {"mean": round(sum(value * lengths[value] for value in values) / below[-1], 1)}
    for share in (50, 90, 95):
        found[f"p{share}"] = values[bisect_left(below, share / 100 * below[-1])]
    return {**found, "longest": values[-1]}


def write_preview(folder: Path, rows: Mapping[str, Iterable[Mapping[str, Any]]]) -> None:
    """The first rows of each split, long texts cut short."""
    shown = {split: [shortened(dict(row)) for row in some] for split, some in rows.items()}
    plain = json.loads(json.dumps(shown, default=str))
    (folder / PREVIEW).write_text(json.dumps(escaped_json(plain), ensure_ascii=False), encoding="utf-8")


def shortened(value: Any) -> Any:
    """A JSON value with long texts cut, long lists and objects without their end."""
    if isinstance(value, str):
        return value if len(value) <= _SHOWN_CHARACTERS else f"{value[:_SHOWN_CHARACTERS]}…"
    if isinstance(value, list):
        return [shortened(item) for item in value[:_SHOWN_ITEMS]]
    if isinstance(value, dict):
        return {shortened(name): shortened(item) for name, item in islice(value.items(), _SHOWN_ITEMS)}
    return value
