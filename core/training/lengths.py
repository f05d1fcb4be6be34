"""After how many tokens texts are cut, per role."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from core.errors import BadSpec
from core.spec.train import Lengths, Prompts
from core.training.encoding import tokenize

_SAMPLE = 2048


@dataclass(frozen=True)
class RoleLength:
    """The limit of one role, and what it does to the data. Numbers are tokens, special ones included."""

    max_length: int
    mean: float
    p50: int
    p95: int
    longest: int
    share_cut: float


@dataclass(frozen=True)
class ChosenLengths:
    query: RoleLength
    document: RoleLength
    sampled_rows: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def choose_lengths(
    asked: Lengths,
    prompts: Prompts,
    tokenizer: PreTrainedTokenizerBase,
    table: pa.Table,
    *,
    configured: int,
    context: int,
    seed: int,
) -> ChosenLengths:
    """Measures a sample of the data and settles what ``auto`` means.

    ``configured`` is the length that the model is set to, beyond which ``auto`` does not go; ``context`` the
    most tokens that it can take. Raises `BadSpec` for a length beyond that.
    """
    count = min(_SAMPLE, table.num_rows)
    chosen = np.sort(np.random.default_rng(seed).choice(table.num_rows, count, replace=False))
    rows = table.take(pa.array(chosen)).to_pylist()
    texts = {
        "query": [(prompts.query or "") + row["query"] for row in rows],
        "document": [
            (prompts.document or "") + text for row in rows for text in (row["positive"], *row["negatives"])
        ],
    }
    roles = {}
    for role, wanted in (("query", asked.query), ("document", asked.document)):
        if wanted != "auto" and wanted > context:
            raise BadSpec(f"lengths.{role} is {wanted}, but the model takes at most {context} tokens")
        # Cut at the context: a book of a million tokens must not decide how long measuring takes.
        lengths = np.array([len(text["input_ids"]) for text in tokenize(tokenizer, texts[role], context + 1)])
        roles[role] = _settle(lengths, wanted, asked.percentile, configured)
    return ChosenLengths(roles["query"], roles["document"], count)


def _settle(lengths: np.ndarray, wanted: int | str, percentile: float, cap: int) -> RoleLength:
    if wanted == "auto":
        at_percentile = int(np.quantile(lengths, percentile, method="higher"))
        limit = min(cap, max(8, -(-at_percentile // 8) * 8))
    else:
        limit = int(wanted)
    return RoleLength(
        max_length=limit,
        mean=round(float(lengths.mean()), 1),
        p50=int(np.quantile(lengths, 0.5)),
        p95=int(np.quantile(lengths, 0.95)),
        longest=int(lengths.max()),
        share_cut=round(float((lengths > limit).mean()), 4),
    )
