"""BM25 (Robertson et al. 1994) by bm25s, Lucene's variant."""

from typing import Any

import bm25s
import numpy as np

from core.mining.finders.base import Found
from core.mining.gather import Gathered
from core.run.context import RunContext

_ASKED_AT_ONCE = 256


class LexicalFinder:
    """Every document is scored for every query; what shares no word with it is no candidate."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self.facts: dict[str, Any] = {"model": "bm25", "similarity": "bm25"}

    def find(self, gathered: Gathered, depth: int) -> Found:
        self._context.phase("mining")
        queries, documents, pairs = gathered.queries, gathered.documents, gathered.pairs
        index = bm25s.BM25(method="lucene")
        corpus = bm25s.tokenize(list(documents.all_texts()), show_progress=False, stopwords=None)
        index.index(corpus, show_progress=False)
        found = np.full((len(queries), depth), -1, np.int64)
        scores = np.full((len(queries), depth), -np.inf, np.float32)
        of_pairs = np.zeros(len(pairs), np.float32)
        order = np.argsort(pairs[:, 0], kind="stable")
        bounds = np.searchsorted(pairs[order, 0], np.arange(len(queries) + 1))
        for number, text in enumerate(queries.all_texts()):
            if number % _ASKED_AT_ONCE == 0:
                self._context.check_stop()
                self._context.progress(fraction=number / len(queries), step=number, total_steps=len(queries))
            tokens = bm25s.tokenize(text, show_progress=False, stopwords=None, return_ids=False)[0]
            known = [token for token in tokens if token in index.vocab_dict]
            every = index.get_scores(known) if known else np.zeros(len(documents), np.float32)
            own = order[bounds[number] : bounds[number + 1]]
            of_pairs[own] = every[pairs[own, 1]]
            able = every[: gathered.candidates]
            best = np.argpartition(-able, depth - 1)[:depth]
            best = best[np.lexsort((best, -able[best]))]
            best = best[able[best] > 0]
            found[number, : len(best)], scores[number, : len(best)] = best, able[best]
        return Found(found, scores, of_pairs)
