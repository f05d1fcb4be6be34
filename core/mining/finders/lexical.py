"""A query's documents by their words."""

import numpy as np

from core.data.rows.words import TOKENIZER
from core.mining.finders.base import Found
from core.mining.read_input import Gathered
from core.ranking.bm25 import WordIndex, best_of
from core.retrieval.system_facts import SystemFacts
from core.runtime.context import RunContext

_ASKED_AT_ONCE = 256


class LexicalFinder:
    """Every document is scored for every query; what shares no word with it is no candidate."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self.facts = SystemFacts(model="bm25", similarity="bm25", tokenizer=TOKENIZER)

    def find(self, gathered: Gathered, depth: int) -> Found:
        self._context.phase("mining")
        queries, documents, pairs = gathered.queries, gathered.documents, gathered.pairs
        index = WordIndex(list(documents.all_texts()))
        found = np.full((len(queries), depth), -1, np.int64)
        scores = np.full((len(queries), depth), -np.inf, np.float32)
        of_pairs = np.zeros(len(pairs), np.float32)
        order = np.argsort(pairs[:, 0], kind="stable")
        bounds = np.searchsorted(pairs[order, 0], np.arange(len(queries) + 1))
        for number, text in enumerate(queries.all_texts()):
            if number % _ASKED_AT_ONCE == 0:
                self._context.check_stop()
                self._context.progress(number, len(queries))
            every = index.scores(text)
            own = order[bounds[number] : bounds[number + 1]]
            of_pairs[own] = every[pairs[own, 1]]
            best = best_of(every[: gathered.candidates], depth)
            found[number, : len(best)], scores[number, : len(best)] = best, every[best]
        return Found(found, scores, of_pairs)
