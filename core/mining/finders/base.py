"""What a query's candidates are, and who brings them."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from core.mining.read_input import Gathered
from core.retrieval.system_facts import SystemFacts


@dataclass(frozen=True)
class Found:
    """``documents`` and ``scores`` [queries, depth], nearest first, -1 where there are no more; ``of_pairs``
    [pairs] are the scores of the positives: NaN where a part of the corpus does not know them."""

    documents: np.ndarray
    scores: np.ndarray
    of_pairs: np.ndarray


class Finder(Protocol):
    """Finds the nearest ``depth`` of the candidates for every query. ``facts`` say how."""

    facts: SystemFacts

    def find(self, gathered: Gathered, depth: int) -> Found: ...
