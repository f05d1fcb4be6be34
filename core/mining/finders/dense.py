"""A bi-encoder's nearest documents: embeddings kept in the cache; exact search, or faiss."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from core.mining.distinct_texts import Pool
from core.mining.finders.base import Found
from core.mining.read_input import Gathered
from core.ranking.inverted_lists import search_with_faiss
from core.ranking.search import search, shard_vectors
from core.retrieval.encode import SHARD, Role
from core.retrieval.encoders import DenseEncoder
from core.runtime.context import RunContext
from core.spec.mine import MineSpec, Part


class DenseFinder:
    """Of a part of the corpus where the spec says so: whole shards are divided among the parts."""

    def __init__(self, spec: MineSpec, context: RunContext) -> None:
        self._spec, self._context = spec, context
        self._encoder = DenseEncoder(
            context,
            spec.model,
            prompts=spec.prompts,
            max_length=spec.max_length,
            compute=spec.precision,
            half=spec.half,
            batch_size=spec.batch_size,
        )
        self.facts = replace(self._encoder.facts, index="faiss" if spec.index == "faiss" else "exact")

    def _shards(
        self, pool: Pool, role: Role, name: str, begin: int = 0, end: int | None = None
    ) -> list[Path]:
        """The embeddings of a pool's texts from ``begin`` to ``end``."""
        total = (len(pool) if end is None else end) - begin
        return self._encoder.shards(pool.all_texts(begin, end), total, name, role)

    def find(self, gathered: Gathered, depth: int) -> Found:
        self._context.phase("encoding")
        begin, end = span_of(self._spec.part, len(gathered.documents))
        of_documents = self._shards(gathered.documents, "document", "documents", begin, end)
        of_queries = self._shards(gathered.queries, "query", "queries")
        self._context.phase("mining")
        asked = np.concatenate([vectors.astype(np.float32) for vectors in shard_vectors(of_queries)])
        pairs = gathered.pairs
        of_pairs = np.full(len(pairs), np.nan, np.float32)

        def only_candidates() -> Iterator[np.ndarray]:
            """Every shard is read once: the positives in it are scored as it goes by."""
            first = begin
            for vectors in shard_vectors(of_documents):
                here = np.flatnonzero((pairs[:, 1] >= first) & (pairs[:, 1] < first + len(vectors)))
                own = vectors[pairs[here, 1] - first].astype(np.float32)
                of_pairs[here] = np.einsum("ij,ij->i", asked[pairs[here, 0]], own)
                if first < gathered.candidates:
                    yield vectors[: gathered.candidates - first]
                first += len(vectors)
                self._context.progress(first - begin, end - begin)

        if self._spec.index == "faiss":
            nearest = search_with_faiss(
                asked,
                list(only_candidates()),
                depth,
                seed=self._spec.seed,
                check_stop=self._context.check_stop,
            )
        else:
            nearest = search(
                asked,
                only_candidates(),
                depth,
                begin=begin,
                device=self._encoder.device,
                scores_per_block=self._spec.scores_at_once,
                check_stop=self._context.check_stop,
            )
        return Found(nearest.indices, nearest.scores, of_pairs)


def span_of(part: Part | None, documents: int) -> tuple[int, int]:
    """From which document to which a part goes: whole shards, about as many in each."""
    if part is None:
        return 0, documents
    shards = -(-documents // SHARD)
    begin, end = (number * shards // part.of * SHARD for number in (part.number - 1, part.number))
    return min(begin, documents), min(end, documents)
