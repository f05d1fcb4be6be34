"""Who brings a query's candidates: a bi-encoder's nearest documents, or BM25's."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import bm25s
import numpy as np
import torch

from core.families import dense
from core.mining.encode import SHARD, encode_to_shards
from core.mining.pool import Pool
from core.mining.search import search, shard_vectors
from core.run.context import RunContext
from core.spec.mine import MineSpec
from core.training.batching import Packing
from core.training.memory import PACKING_TOKENS
from core.training.tokens import fingerprint


@dataclass(frozen=True)
class Found:
    """``documents`` and ``scores`` [queries, depth], nearest first, -1 where there are no more; ``of_pairs``
    [pairs] are the scores of the positives."""

    documents: np.ndarray
    scores: np.ndarray
    of_pairs: np.ndarray


class Finder(Protocol):
    """Finds for all queries among the first ``candidates`` documents; pairs are (query, document) numbers."""

    facts: dict[str, Any]

    def find(
        self, queries: Pool, documents: Pool, candidates: int, pairs: np.ndarray, depth: int
    ) -> Found: ...


class DenseFinder:
    """Embeddings of distinct texts, kept in the cache; exact search."""

    def __init__(self, spec: MineSpec, context: RunContext) -> None:
        self._spec, self._context = spec, context
        device = "cuda" if spec.resources.gpus != 0 and torch.cuda.is_available() else "cpu"
        self._model = dense.load_model(context, spec.model, device).eval()
        if spec.max_length is not None:
            self._model.max_seq_length = min(spec.max_length, dense.context_length(self._model))
        self._device = device
        packing = Packing(PACKING_TOKENS[device], overhead=64)
        if device == "cuda":
            packing = replace(packing, multiple=8, longest=dense.context_length(self._model))
        self._encode = dense.make_encode(self._model, spec.prompts, packing, context.check_stop)
        self.facts = {
            "model": spec.model,
            "weights_sha256": dense.weights_sha256(self._model),
            "max_length": self._model.max_seq_length,
            "similarity": self._model.similarity_fn_name,
            "device": device,
        }

    def _identity(self, prompt: str | None) -> str:
        known = [self.facts["weights_sha256"], fingerprint(self._model.tokenizer), self.facts["max_length"]]
        return repr([*known, self.facts["similarity"], prompt])

    def _shards(self, pool: Pool, role: str, name: str) -> list[Any]:
        done, again = 0, 0

        def tell(count: int, known: bool) -> None:
            nonlocal done, again
            done += count
            again += count if known else 0
            fraction = done / max(1, len(pool))
            self._context.progress(fraction=fraction, step=done, total_steps=len(pool))

        prompt = getattr(self._spec.prompts, role)
        paths = encode_to_shards(
            pool.all_texts(),
            role,  # type: ignore[arg-type]
            self._encode,
            self._identity(prompt),
            self._context.request.cache,
            half=self._spec.half,
            check_stop=self._context.check_stop,
            tell=tell,
        )
        if again:
            self._context.notice(f"{again} of {done} {name} were encoded by an earlier job or attempt.")
        return paths

    def find(self, queries: Pool, documents: Pool, candidates: int, pairs: np.ndarray, depth: int) -> Found:
        self._context.phase("encoding")
        of_documents = self._shards(documents, "document", "documents")
        of_queries = self._shards(queries, "query", "queries")
        self._context.phase("mining")
        asked = np.concatenate([vectors.astype(np.float32) for vectors in shard_vectors(of_queries)])

        of_pairs = np.empty(len(pairs), np.float32)

        def only_candidates() -> Iterator[np.ndarray]:
            """Every shard is read once: the positives in it are scored as it goes by."""
            begin = 0
            for number, vectors in enumerate(shard_vectors(of_documents)):
                here = np.flatnonzero(pairs[:, 1] // SHARD == number)
                own = vectors[pairs[here, 1] - begin].astype(np.float32)
                of_pairs[here] = np.einsum("ij,ij->i", asked[pairs[here, 0]], own)
                if begin < candidates:
                    yield vectors[: candidates - begin]
                begin += len(vectors)

        nearest = search(
            asked, only_candidates(), depth, device=self._device, check_stop=self._context.check_stop
        )
        return Found(nearest.indices, nearest.scores, of_pairs)


class LexicalFinder:
    """BM25 (Robertson et al. 1994) by bm25s, Lucene's variant."""

    def __init__(self, check_stop: Callable[[], None]) -> None:
        self._check_stop = check_stop
        self.facts: dict[str, Any] = {"model": "bm25", "similarity": "bm25"}

    def find(self, queries: Pool, documents: Pool, candidates: int, pairs: np.ndarray, depth: int) -> Found:
        index = bm25s.BM25(method="lucene")
        corpus = bm25s.tokenize(list(documents.all_texts()), show_progress=False, stopwords=None)
        index.index(corpus, show_progress=False)
        depth = max(1, min(depth, candidates))
        found = np.full((len(queries), depth), -1, np.int64)
        scores = np.full((len(queries), depth), -np.inf, np.float32)
        of_pairs = np.zeros(len(pairs), np.float32)
        order = np.argsort(pairs[:, 0], kind="stable")
        bounds = np.searchsorted(pairs[order, 0], np.arange(len(queries) + 1))
        for number, text in enumerate(queries.all_texts()):
            if number % 256 == 0:
                self._check_stop()
            tokens = bm25s.tokenize(text, show_progress=False, stopwords=None, return_ids=False)[0]
            known = [token for token in tokens if token in index.vocab_dict]
            every = index.get_scores(known) if known else np.zeros(len(documents), np.float32)
            own = order[bounds[number] : bounds[number + 1]]
            of_pairs[own] = every[pairs[own, 1]]
            able = every[:candidates]
            best = np.argpartition(-able, depth - 1)[:depth]
            best = best[np.lexsort((best, -able[best]))]
            best = best[able[best] > 0]
            found[number, : len(best)], scores[number, : len(best)] = best, able[best]
        return Found(found, scores, of_pairs)
