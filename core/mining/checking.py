"""The check of candidates by a cross-encoder: a candidate that it takes for an answer is no negative.

Only who is about to become a negative is asked, in rounds over many queries at once: so batches are full, and
nothing is scored that nobody needs.
"""

from collections.abc import Sequence

import numpy as np

from core.engine.models.identity import Identity
from core.families import cross_encoder
from core.mining.page import CheckedBy
from core.mining.read_input import Gathered
from core.ranking.negatives.filters import Candidates, bar_of
from core.ranking.negatives.starvation import CHECKED, Tally
from core.retrieval.encoders import packing_for
from core.runtime.context import RunContext
from core.spec.parts.filters import CrossEncoderCheck


class Checker:
    """Chooses negatives that stay below the bar, by the model's own scores of queries' positives."""

    def __init__(self, asked: CrossEncoderCheck, context: RunContext, gathered: Gathered) -> None:
        device = context.device
        model = cross_encoder.load_model(context, asked.model, device, asked.max_length)
        self._score = cross_encoder.score_with(model, packing_for(device, model), context.check_stop)
        self._asked, self._gathered = asked, gathered
        identity = Identity.of(model)
        self._model, self._identity = asked.model, identity
        self.pairs_scored = 0

    @property
    def page(self) -> CheckedBy:
        """Who has checked, and how much so far."""
        return CheckedBy(
            model=self._model,
            weights_sha256=self._identity.weights_sha256,
            model_sha256=self._identity.model_sha256,
            pairs=self.pairs_scored,
        )

    def of_pairs(self, rows: np.ndarray) -> np.ndarray:
        """Scores of rows' positives. rows [some] -> [some]"""
        return self._ask(self._gathered.pairs[rows, 0], self._gathered.pairs[rows, 1])

    def bar(self, of_positives: Sequence[float]) -> float:
        """The highest score of a query's negatives, by this model's scores of its positives."""
        return min(bar_of(self._asked, score) for score in of_positives)

    def choose(
        self,
        queries: Sequence[int],
        bars: Sequence[float],
        candidates: Sequence[Candidates],
        turns: Sequence[np.ndarray],
        wanted: int,
        tally: Tally,
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """For each query the places of its negatives among its candidates, and their scores.

        ``bars`` are those of `bar`; ``turns`` are places in the order in which they are asked.
        """
        chosen: list[list[tuple[int, float]]] = [[] for _ in queries]
        asked = [0] * len(queries)  # so many of its turn
        while True:
            round_: list[tuple[int, int]] = []
            for index, turn in enumerate(turns):
                end = min(len(turn), asked[index] + wanted - len(chosen[index]))
                round_ += [(index, int(place)) for place in turn[asked[index] : end]]
                asked[index] = end
            if not round_:
                break
            tally.checked += len(round_)
            scores = self._ask(
                np.array([queries[index] for index, _ in round_]),
                np.array([candidates[index].documents[place] for index, place in round_]),
            )
            for (index, place), score in zip(round_, scores.tolist(), strict=True):
                if score <= bars[index]:
                    chosen[index].append((place, score))
                else:
                    tally.removed[CHECKED] += 1
        for found in chosen:
            found.sort()
        return (
            [np.array([place for place, _ in found], np.int64) for found in chosen],
            [np.array([score for _, score in found], np.float32) for found in chosen],
        )

    def _ask(self, queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
        texts = (self._gathered.queries.texts(queries), self._gathered.documents.texts(documents))
        return self.score(list(zip(*texts, strict=True)))

    def score(self, pairs: list[tuple[str, str]]) -> np.ndarray:
        """Scores of (query, document) texts. [pairs]"""
        self.pairs_scored += len(pairs)
        return self._score(pairs)
