"""After how many tokens texts are cut, per role."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from core.engine.token_table import describe_counts
from core.errors import BadSpec
from core.spec.parts.training import Lengths


@dataclass(frozen=True)
class RoleLength:
    """The limit of one role, and what it does to the data. Numbers are tokens, special ones included."""

    max_length: int
    mean: float
    p50: int
    p90: int
    p95: int
    longest: int  # as far as the model's context: beyond it nobody counts
    share_cut: float


@dataclass(frozen=True)
class ChosenLengths:
    query: RoleLength
    document: RoleLength

    @property
    def limits(self) -> dict[str, int]:
        """Tokens by role."""
        return {"query": self.query.max_length, "document": self.document.max_length}

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def check_lengths(asked: Lengths, context: int) -> None:
    """Raises `BadSpec` for a length beyond the most tokens that the model can take."""
    for role, wanted in (("query", asked.query), ("document", asked.document)):
        if wanted != "auto" and wanted > context:
            raise BadSpec(f"lengths.{role} is {wanted}, but the model takes at most {context} tokens")


def choose_lengths(
    asked: Lengths,
    counts: dict[str, np.ndarray],
    *,
    specials: dict[str, int],
    configured: dict[str, int],
    fixed: dict[str, int],
    context: int,
    seed: int = 0,
) -> ChosenLengths:
    """Settles what ``auto`` means.

    ``counts`` are the tokens of every query and every document, without the ``specials``. ``configured`` are
    the lengths that the model is set to, beyond which ``auto`` does not go, ``fixed`` those that it is
    always; all by role. ``context``: the most tokens that it can take. Raises as `check_lengths` does.
    """
    check_lengths(asked, context)
    roles = {}
    for role, wanted in (("query", asked.query), ("document", asked.document)):
        tokens = counts[role] + specials[role]
        if wanted == "auto" and role in fixed:
            limit = fixed[role]
        elif wanted == "auto":
            measured = tokens
            if asked.sample is not None and asked.sample < len(tokens):
                measured = np.random.default_rng(seed).choice(tokens, asked.sample, replace=False)
            at_percentile = int(np.quantile(measured, asked.percentile, method="inverted_cdf"))
            limit = min(configured[role], max(8, -(-at_percentile // 8) * 8))
        else:
            limit = wanted
        roles[role] = RoleLength(
            max_length=limit,
            share_cut=round(float((tokens > limit).mean()), 4),
            **describe_counts(counts[role], specials[role]),
        )
    return ChosenLengths(roles["query"], roles["document"])
