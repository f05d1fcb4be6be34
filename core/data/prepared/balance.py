"""Categories in the shares that a spec asks for, in each split."""

import math

import numpy as np

from core.data.dedup.mixing import mix
from core.data.prepared.read_sources import Gathered
from core.errors import BadData
from core.runtime.context import RunContext
from core.spec.prepare import Balance, PrepareSpec

SPLITS = ("test", "dev", "train")
"""In the order of their numbers."""

UNBALANCED = 3
_FEW_LEFT = 0.5
"""Of a split's rows: where balancing keeps a smaller share, that is said."""


def balance_categories(
    asked: Balance, gathered: Gathered, verdict: np.ndarray, splits: np.ndarray, seed: int
) -> tuple[np.ndarray, list[str]]:
    """Leaves out rows of categories that have more than their share of a split: the same ones whatever their
    order. Returns the verdicts, and sentences on splits that lack a category. Raises `BadData`.
    """
    if asked.shares is None:
        return verdict, []
    kept = verdict == 0
    there = count_categories(gathered, kept)
    shares = asked.shares if isinstance(asked.shares, dict) else {name: 1 / len(there) for name in there}
    if missing := set(shares) - set(there):
        raise BadData(
            f"balance: no row has the category {', '.join(sorted(missing))}; there are {', '.join(there)}"
        )
    if not shares:
        raise BadData("balance: no row has a category")
    verdict = verdict.copy()
    verdict[kept & ~np.isin(gathered.category, [gathered.categories.index(name) for name in shares])] = (
        UNBALANCED
    )
    order = mix(gathered.names ^ mix(np.array([seed + 2], np.uint64)))
    told = []
    for split in np.unique(splits[kept]).tolist():
        of_split = kept & (splits == split)
        counts = count_categories(gathered, of_split)
        able = {name: share for name, share in shares.items() if name in counts}
        if absent := sorted(set(shares) - set(able)):
            told.append(f"balance: split {SPLITS[split]} has no row of {', '.join(absent)}.")
        if not able:
            continue
        scarce = min(able, key=lambda name: counts[name] / able[name])
        whole = counts[scarce] / able[scarce]
        for name, share in able.items():
            rows = np.flatnonzero(of_split & (gathered.category == gathered.categories.index(name)))
            surplus = rows[np.argsort(order[rows], kind="stable")][max(1, int(share * whole + 1e-9)) :]
            verdict[surplus] = UNBALANCED
        before, after = int(of_split.sum()), int((of_split & (verdict == 0)).sum())
        if after < _FEW_LEFT * before:
            told.append(
                f"balance.shares keeps {after:,} of {before:,} rows of split {SPLITS[split]}: it has "
                f"{counts[scarce]} of {scarce}, whose share decides how many the others may have. Name "
                "shares without that category, give it a smaller one, or use balance.min_rows alone."
            )
    return verdict, told


def count_categories(gathered: Gathered, rows: np.ndarray) -> dict[str, int]:
    """How many of the marked rows each category has, of those that have any."""
    counts = np.bincount(
        gathered.category[rows & (gathered.category >= 0)], minlength=len(gathered.categories)
    )
    return {name: int(count) for name, count in zip(gathered.categories, counts, strict=True) if count}


def warn_of_categories(spec: PrepareSpec, gathered: Gathered, kept: np.ndarray, context: RunContext) -> None:
    least = _least_rows(spec, gathered)
    few = {
        name: (count, least[name])
        for name, count in count_categories(gathered, kept).items()
        if count < least[name]
    }
    if few and (len(gathered.passages) or spec.balance.shares is not None):
        asked = spec.balance.min_rows
        shown = ", ".join(
            f"{name} {count}" + (f" of {wanted}" if not isinstance(asked, int) else "")
            for name, (count, wanted) in sorted(few.items(), key=lambda item: item[1])[:10]
        )
        more = f" and {len(few) - 10} more" if len(few) > 10 else ""
        bound = (
            f"{asked} rows" if isinstance(asked, int) else f"a row for {asked.share:.0%} of their passages"
        )
        context.notice(
            f"These categories have fewer than {bound} (balance.min_rows), too few to learn much about: "
            f"{shown}{more}.",
            "warning",
        )


def _least_rows(spec: PrepareSpec, gathered: Gathered) -> dict[str, int]:
    """Below how many rows a category gets a warning."""
    asked = spec.balance.min_rows
    if isinstance(asked, int):
        return dict.fromkeys(gathered.categories, asked)
    of = gathered.passages.category if len(gathered.passages) else gathered.category
    counts = np.bincount(of[of >= 0], minlength=len(gathered.categories))
    return {
        name: math.ceil(asked.share * count)
        for name, count in zip(gathered.categories, counts.tolist(), strict=True)
    }
