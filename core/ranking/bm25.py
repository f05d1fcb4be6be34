"""BM25 (Robertson et al. 1994) by bm25s, Lucene's variant."""

from collections.abc import Sequence

import bm25s
import numpy as np

from core.data.rows.words import tokenized, words_of


class WordIndex:
    """Texts that can be searched by their words, in any script."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._count = len(texts)
        self._index = bm25s.BM25(method="lucene")
        tokens = tokenized(texts)
        self._vocabulary: dict[str, int] = dict(tokens.vocab)
        if self._vocabulary:  # bm25s cannot index texts without any token
            self._index.index(tokens, show_progress=False)

    def scores(self, query: str) -> np.ndarray:
        """Of every text; 0 for a text that shares no token with the query. [texts]"""
        known = [self._vocabulary[token] for token in words_of(query) if token in self._vocabulary]
        if not known:
            return np.zeros(self._count, np.float32)
        found: np.ndarray = self._index.get_scores_from_ids(known)
        return found


def best_of(scores: np.ndarray, depth: int) -> np.ndarray:
    """Numbers of the highest scores, best first, equal ones by number; none that is 0. scores [texts]"""
    depth = min(depth, len(scores))
    best = np.argpartition(-scores, depth - 1)[:depth] if depth else np.empty(0, np.int64)
    best = best[np.lexsort((best, -scores[best]))]
    return best[scores[best] > 0]
