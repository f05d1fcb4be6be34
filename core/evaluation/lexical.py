"""BM25 (Robertson et al. 1994) by bm25s, Lucene's variant."""

from collections.abc import Sequence
from typing import Any

import bm25s
import numpy as np

from core.errors import BadData


def build_word_index(texts: Sequence[str], **options: Any) -> bm25s.BM25:
    """Raises `BadData` where no text has a word: bm25s fails on an empty vocabulary."""
    tokens = tokenize_words(texts)
    if not any(word for word in tokens.vocab):
        raise BadData(
            f"BM25 ranks by words of two letters or more, and none of the {len(texts)} texts has one: use a "
            "model instead"
        )
    index = bm25s.BM25(**options)
    index.index(tokens, show_progress=False)
    return index


def tokenize_words(texts: Sequence[str]) -> Any:
    """Return the ids of each text's words, and the vocabulary."""
    return bm25s.tokenize(texts, show_progress=False, stopwords=None)


class WordIndex:
    """Texts that can be asked by their words."""

    def __init__(self, texts: Sequence[str]) -> None:
        """Raises `BadData` where no text has a word."""
        self._index = build_word_index(texts, method="lucene")
        self._count = len(texts)

    def scores(self, query: str) -> np.ndarray:
        """Of every text; 0 for what shares no word with the query. [texts]"""
        tokens = bm25s.tokenize(query, show_progress=False, stopwords=None, return_ids=False)[0]
        known = [token for token in tokens if token in self._index.vocab_dict]
        return self._index.get_scores(known) if known else np.zeros(self._count, np.float32)


def best_of(scores: np.ndarray, depth: int) -> np.ndarray:
    """Numbers of the highest scores, best first, equal ones by number; none that is 0. scores [texts]"""
    depth = min(depth, len(scores))
    best = np.argpartition(-scores, depth - 1)[:depth] if depth else np.empty(0, np.int64)
    best = best[np.lexsort((best, -scores[best]))]
    return best[scores[best] > 0]
