"""Paired significance tests of two systems over queries.

Both models answer the same queries, so what counts is each query's difference. The randomisation test asks
how often as large a mean comes about if every difference had its sign by chance; the bootstrap, how much the
mean would change with other queries of the kind (Smucker, Allan and Carterette 2007; Efron 1979). Of several
datasets the macro mean is compared: signs and queries are drawn within each.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from core.spec.parts.evaluation import rises

ALL = "all datasets"

_DRAWN = 1 << 22
"""Random numbers at once."""

_POWER = 2.8
"""A difference of so many standard errors is seen four times out of five at the level of 0.05."""

FEWEST = 10

_TONES = {"better": "good", "worse": "bad", "no difference": "even"}


@dataclass(frozen=True)
class Comparison:
    """``difference`` is the mean gain over the baseline, ``low`` to ``high`` its 95 % interval; ``p_value``
    is two-sided, and as the comparison stands alone: see `corrected`. ``before`` and ``after`` are the means
    of the baseline and of the candidate on the same queries."""

    difference: float
    low: float
    high: float
    p_value: float
    standard_error: float
    queries: int
    wins: int
    losses: int
    ties: int
    least_p_value: float  # that so many permutations can tell
    before: float
    after: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def compare(
    candidate: Sequence[Mapping[str, float]],
    baseline: Sequence[Mapping[str, float]],
    *,
    permutations: int = 10_000,
    seed: int = 42,
    rising: bool = True,
) -> Comparison | None:
    """Of two models' values by query, for each dataset. None where they have no query in common.

    ``rising``: more is better, which settles what is a win. The same seed gives the same numbers.
    """
    pairs = [
        np.array([(mine[query], theirs[query]) for query in sorted(mine.keys() & theirs.keys())], np.float64)
        for mine, theirs in zip(candidate, baseline, strict=True)
    ]
    pairs = [pair for pair in pairs if len(pair)]
    if not pairs:
        return None
    gains = [pair[:, 0] - pair[:, 1] for pair in pairs]
    after, before = np.mean([pair.mean(axis=0) for pair in pairs], axis=0)
    generator = np.random.default_rng(seed)
    observed = float(np.mean([gain.mean() for gain in gains]))
    by_chance, resampled = np.zeros(permutations), np.zeros(permutations)
    for gain in gains:
        for block in _blocks(permutations, len(gain)):
            signs = generator.integers(0, 2, (block.stop - block.start, len(gain)), np.int8) * 2.0 - 1
            by_chance[block] += signs @ gain / len(gain)
            chosen = generator.integers(0, len(gain), signs.shape)
            resampled[block] += gain[chosen].mean(axis=1)
    by_chance /= len(gains)
    resampled /= len(gains)
    # What differs by rounding alone is as large.
    extreme = int((np.abs(by_chance) >= abs(observed) - 1e-12).sum())
    low, high = np.quantile(resampled, [0.025, 0.975])
    together = np.concatenate(gains) * (1 if rising else -1)
    variance = sum(float(gain.var(ddof=1)) / len(gain) if len(gain) > 1 else 0.0 for gain in gains)
    return Comparison(
        observed,
        float(low),
        float(high),
        (extreme + 1) / (permutations + 1),
        math.sqrt(variance) / len(gains),
        len(together),
        int((together > 1e-12).sum()),
        int((together < -1e-12).sum()),
        int((np.abs(together) <= 1e-12).sum()),
        1 / (permutations + 1),
        float(before),
        float(after),
    )


def _blocks(permutations: int, queries: int) -> list[slice]:
    rows = max(1, _DRAWN // queries)
    return [slice(start, min(start + rows, permutations)) for start in range(0, permutations, rows)]


def corrected(p_values: Sequence[float]) -> list[float]:
    """Holm's correction (1979): among twenty comparisons of equals, one would look like a find."""
    found, highest = [0.0] * len(p_values), 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        highest = max(highest, min(1.0, p_values[index] * (len(p_values) - place)))
        found[index] = highest
    return found


def outcome(comparison: Comparison, p_value: float, level: float, *, rising: bool = True) -> str:
    """``better``, ``worse``, or ``no difference``: one that so many queries could show."""
    if comparison.queries < FEWEST or p_value >= level or comparison.difference == 0:
        return "no difference"
    return "better" if (comparison.difference > 0) == rising else "worse"


def format_p_value(comparison: Comparison, p_value: float) -> str:
    """``= 0.03``, or ``<= 0.0003`` where no permutation came near. ``p_value`` is the corrected one."""
    at_most = "<=" if comparison.p_value <= comparison.least_p_value else "="
    return f"{at_most} {p_value:.2g}"


def verdict(comparison: Comparison, p_value: float, level: float, metric: str, *, rising: bool = True) -> str:
    """A sentence that says no more than was measured. ``p_value`` is the corrected one."""
    found = outcome(comparison, p_value, level, rising=rising)
    numbers = (
        f"{metric} {comparison.difference:+.4f}, from {comparison.before:.4f} to {comparison.after:.4f} "
        f"(95 % interval {comparison.low:+.4f} to "
        f"{comparison.high:+.4f}, p {format_p_value(comparison, p_value)}, {comparison.queries} queries: "
        f"{comparison.wins} won, {comparison.losses} lost, {comparison.ties} tied)"
    )
    if comparison.queries < FEWEST:
        return f"Too few queries to say anything: {numbers}."
    if found != "no difference":
        return f"{found.capitalize()}: {numbers}."
    return (
        f"No difference that these queries could show: {numbers}. They would show one of about "
        f"{_POWER * comparison.standard_error:.3f} four times out of five."
    )


@dataclass(frozen=True)
class Compared:
    """A model against the baseline, on one dataset or on all."""

    model: str
    dataset: str
    metric: str
    comparison: Comparison
    corrected: float
    outcome: str
    verdict: str

    @property
    def tone(self) -> str:
        """As reports show it."""
        return _TONES[self.outcome]

    def as_dict(self) -> dict[str, Any]:
        told = {name: value for name, value in vars(self).items() if name != "comparison"}
        return {**told, **self.comparison.as_dict()}


ByQuery = Mapping[str, Mapping[str, Mapping[str, float]]]
"""dataset -> metric -> query -> value"""


def compare_models(
    metric: str,
    candidates: Mapping[str, ByQuery],
    baseline: ByQuery,
    *,
    permutations: int = 10_000,
    level: float = 0.05,
    seed: int = 42,
    check_stop: Callable[[], None] = lambda: None,
) -> list[Compared]:
    """Each of some models with the baseline by one metric, on each dataset and, of several, on all of them.

    Holm's correction is over all of these. What a dataset has not (triplets, say) is left out.
    """
    datasets = [name for name, found in baseline.items() if metric in found]
    groups = [[name] for name in datasets] + ([datasets] if len(datasets) > 1 else [])
    rising = rises(metric)
    made: list[tuple[str, str, Comparison]] = []
    for model, found in candidates.items():
        for group in groups:
            check_stop()
            comparison = compare(
                [found[name][metric] for name in group],
                [baseline[name][metric] for name in group],
                permutations=permutations,
                seed=seed,
                rising=rising,
            )
            if comparison is not None:
                made.append((model, group[0] if len(group) == 1 else ALL, comparison))
    p_values = corrected([comparison.p_value for *_, comparison in made])
    return [
        Compared(
            model,
            dataset,
            metric,
            comparison,
            p_value,
            outcome(comparison, p_value, level, rising=rising),
            verdict(comparison, p_value, level, metric, rising=rising),
        )
        for (model, dataset, comparison), p_value in zip(made, p_values, strict=True)
    ]
