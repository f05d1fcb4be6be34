"""What a query's candidates are, and who brings them."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

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


class Progress:
    """How far the encoding of a pool is, and how much of it was there."""

    def __init__(self, context: RunContext, name: str, total: int) -> None:
        self._context, self._name, self._total = context, name, total
        self._done = self._known = 0

    def __call__(self, texts: int, known: bool) -> None:
        self._done += texts
        self._known += texts if known else 0
        self._context.progress(
            fraction=self._done / max(1, self._total), step=self._done, total_steps=self._total
        )

    def close(self) -> None:
        if self._known:
            self._context.notice(
                f"{self._known} of {self._done} {self._name} were encoded by an earlier job or attempt."
            )
