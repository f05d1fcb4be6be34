"""What a query's candidates are, and who brings them."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from core.mining.encode import EncodeShard, Role, encode_to_shards
from core.mining.gather import Gathered
from core.run.context import RunContext


@dataclass(frozen=True)
class Found:
    """``documents`` and ``scores`` [queries, depth], nearest first, -1 where there are no more; ``of_pairs``
    [pairs] are the scores of the positives: NaN where a part of the corpus does not know them."""

    documents: np.ndarray
    scores: np.ndarray
    of_pairs: np.ndarray


class Finder(Protocol):
    """Finds the nearest ``depth`` of the candidates for every query. ``facts`` say how."""

    facts: dict[str, Any]

    def find(self, gathered: Gathered, depth: int) -> Found: ...


def encode_pool(
    context: RunContext,
    texts: Iterable[str],
    total: int,
    name: str,
    role: Role,
    encode: EncodeShard,
    identity: str,
    *,
    half: bool,
    size: int | None = None,
) -> list[Path]:
    """As `encode_to_shards`, in the job's cache; tells how far it is, and how much of it was there."""
    done = known = 0

    def tell(count: int, was_there: bool) -> None:
        nonlocal done, known
        done += count
        known += count if was_there else 0
        context.progress(fraction=done / max(1, total), step=done, total_steps=total)

    paths = encode_to_shards(
        texts,
        role,
        encode,
        identity,
        context.request.cache,
        size=size,
        half=half,
        check_stop=context.check_stop,
        tell=tell,
    )
    if known:
        context.notice(f"{known} of {done} {name} were encoded by an earlier job or attempt.")
    return paths
