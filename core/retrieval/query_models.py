"""The models that filter made queries: round trips by a dense model or BM25, scores by a cross-encoder."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import numpy as np

from core.families import cross_encoder
from core.ranking.bm25 import WordIndex, best_of
from core.ranking.search import search, shard_vectors
from core.retrieval.encoders import DenseEncoder, packing_for
from core.runtime.context import RunContext
from core.spec.parts.models import Prompts
from core.spec.parts.queries import RoundTrip, TeacherScore

_PAIRS = 4096
"""Scored at once, so that pairs of like length are in one batch."""

_TOLD_QUERIES = 512


class QueryModels:
    """Loads each model when it is needed. Implements `core.data.queries.making.Models`."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._score: tuple[TeacherScore, Callable[[list[tuple[str, str]]], np.ndarray]] | None = None

    def found(
        self,
        asked: RoundTrip,
        texts: Callable[[], Iterator[str]],
        group: np.ndarray,
        queries: Sequence[str],
        own: np.ndarray,
    ) -> np.ndarray:
        """Whether one of the first ``top_k`` passages of each query is of its own group. [queries]

        ``group`` [passages] numbers passages that say nearly the same alike; ``own`` [queries].
        """
        if asked.model == "bm25":
            return self._found_by_words(asked.top_k, texts, group, queries, own)
        nearest = self._by_vectors(asked, texts, len(group), queries)
        groups = np.where(nearest >= 0, group[nearest], -1)  # [queries, top_k]
        return np.asarray((groups == own[:, None]).any(axis=1))

    def _found_by_words(
        self,
        depth: int,
        texts: Callable[[], Iterator[str]],
        group: np.ndarray,
        queries: Sequence[str],
        own: np.ndarray,
    ) -> np.ndarray:
        index = WordIndex(list(texts()))
        found = np.zeros(len(queries), bool)
        for number, query in enumerate(queries):
            if number % _TOLD_QUERIES == 0:
                self._context.check_stop()
                self._context.progress(number, len(queries))
            found[number] = (group[best_of(index.scores(query), depth)] == own[number]).any()
        return found

    def _by_vectors(
        self, asked: RoundTrip, texts: Callable[[], Iterator[str]], count: int, queries: Sequence[str]
    ) -> np.ndarray:
        encoder = DenseEncoder(self._context, asked.model, prompts=Prompts(), max_length=asked.max_length)
        self._context.phase("encoding")
        shards = encoder.shards(texts(), count, "passages", "document")
        of_queries = encoder.shards(iter(queries), len(queries), "queries", "query")
        vectors = np.concatenate([part.astype(np.float32) for part in shard_vectors(of_queries)])
        return search(
            vectors,
            shard_vectors(shards),
            min(asked.top_k, count),
            device=encoder.device,
            check_stop=self._context.check_stop,
        ).indices

    def scores(self, asked: TeacherScore, pairs: Iterator[tuple[str, str]]) -> Iterator[float]:
        """A cross-encoder's score of each pair of query and text."""
        if self._score is None or self._score[0] != asked:
            device = self._context.device
            model = cross_encoder.load_model(self._context, asked.model, device, asked.max_length)
            packing = packing_for(device, model)
            self._score = asked, cross_encoder.score_with(model, packing, self._context.check_stop)
        while some := list(islice(pairs, _PAIRS)):
            yield from self._score[1](some).tolist()
