"""The systems that an evaluation compares: BM25, a bi-encoder, a late-interaction model, a cross-encoder.

Each ranks a whole retrieval set, says what its corpus takes to keep, and can be asked query by query for its
latency. One is loaded at a time.
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from core.data.retrieval_sets.judgments import RetrievalSet
from core.data.rows.words import TOKENIZER
from core.engine.models.identity import Identity
from core.errors import BadModel
from core.families import cross_encoder, dense, late_interaction
from core.families.cross_encoder.evaluator import find_by_words, rerank
from core.families.detect import family_in
from core.families.family import Use
from core.families.late_interaction import Ragged, score_all
from core.families.prompts import prompts_of
from core.ranking.bm25 import WordIndex, best_of
from core.ranking.metrics import Run, in_order
from core.ranking.rank_set import rank_set
from core.ranking.search import Nearest, search, shard_vectors
from core.retrieval.encoders import DenseEncoder, TokenEncoder, packing_for
from core.retrieval.system_facts import SystemFacts
from core.runtime.context import RunContext
from core.spec.evaluate import EvaluatedModel, EvaluateSpec
from core.spec.parts.evaluation import Rerank
from core.spec.parts.models import Prompts

_RESIDENT_BYTES = 4e9
"""Of vectors that are held in memory to be asked one by one."""

_RERANKED_AT_ONCE = 16
"""Queries: with a hundred candidates each there are enough pairs of similar length."""

_SCORED_AT_ONCE = 1024

Ask = Callable[[str], dict[str, float]]
"""A query -> seconds by what was done: encode, search, rerank."""


@dataclass(frozen=True, kw_only=True)
class StoredVectors:
    """A corpus that is kept as vectors. ``index``: of vectors of tokens."""

    vectors: int
    bytes_per_vector: int
    bytes: int
    index: str | None = None

    def as_dict(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass
class Ranking:
    """``stored`` is None of a system that keeps no vectors."""

    run: Run
    seconds: float
    stored: StoredVectors | None = None


class Entrant(Protocol):
    """``facts`` are for people; ``key`` is of everything that its scores depend on."""

    facts: SystemFacts
    key: str

    def rank(self, dataset: RetrievalSet, depth: int) -> Ranking:
        """Every query's best documents, without those that it must leave out."""
        ...

    def score(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        """(query, document) -> scores [pairs]"""
        ...

    def asker(self, dataset: RetrievalSet, depth: int) -> Ask | None:
        """Answers single queries from memory; None where the corpus does not fit."""
        ...


def open_entrant(
    context: RunContext, spec: EvaluateSpec, asked: EvaluatedModel, candidates: "Candidates"
) -> Entrant:
    """Loads the model. Raises `BadModel`."""
    if asked.ref == "bm25":
        return WordEntrant(context)
    family = family_in(context, asked.ref) if asked.family == "auto" else asked.family
    if asked.prune_embeddings is not None and family != "late_interaction":
        raise BadModel(f"{asked.ref} is {family}: prune_embeddings is of late_interaction models alone")
    if family == "late_interaction":
        return TokenEntrant(context, spec, asked)
    if family == "cross_encoder":
        return PairEntrant(context, spec, asked, candidates)
    return DenseEntrant(context, spec, asked)


class Candidates:
    """Whose documents a cross-encoder brings into order: found once for all of them."""

    def __init__(self, context: RunContext, spec: EvaluateSpec, runs: dict[int, Run]) -> None:
        """``runs``: rankings that were given, by ``id`` of their dataset."""
        self._context, self._spec = context, spec
        self._found = {key: Ranking(run, 0.0) for key, run in runs.items()}
        self._retriever: Entrant | None = None

    @property
    def asked(self) -> Rerank:
        return self._spec.rerank

    def of(self, dataset: RetrievalSet) -> Ranking:
        if id(dataset) not in self._found:
            self._found[id(dataset)] = self.retriever().rank(dataset, self.asked.depth)
        return self._found[id(dataset)]

    def key_of(self, dataset: RetrievalSet) -> str:
        """Of everything that the candidates depend on, beside the dataset."""
        found = self._found.get(id(dataset))
        if found is not None and not found.seconds:  # a run that was given
            return hashlib.sha256(repr(found.run).encode()).hexdigest()
        return f"{self.asked.depth} {self.retriever().key}"

    def retriever(self) -> Entrant:
        if self._retriever is None:
            reference = self.asked.retriever
            prompts = Prompts() if reference == "bm25" else prompts_of(reference, self._context)
            asked = EvaluatedModel(ref=reference, family=self.asked.family, prompts=prompts)
            self._retriever = open_entrant(self._context, self._spec, asked, self)
        return self._retriever


class WordEntrant:
    """BM25."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self.facts = SystemFacts(
            model="bm25",
            family="lexical",
            similarity="bm25",
            tokenizer=TOKENIZER,
        )
        self.key = f"bm25, bm25s {version('bm25s')}, {TOKENIZER}"

    def rank(self, dataset: RetrievalSet, depth: int) -> Ranking:
        begun = time.monotonic()
        run = find_by_words(dataset, depth, self._context.check_stop)
        return Ranking(run, time.monotonic() - begun)

    def score(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        documents = list(dict.fromkeys(document for _, document in pairs))
        place = {text: number for number, text in enumerate(documents)}
        index = WordIndex(documents)
        found = np.zeros(len(pairs), np.float32)
        by_query: dict[str, list[int]] = {}
        for number, (query, _) in enumerate(pairs):
            by_query.setdefault(query, []).append(number)
        for query, numbers in by_query.items():
            every = index.scores(query)
            found[numbers] = every[[place[pairs[number][1]] for number in numbers]]
        return found

    def asker(self, dataset: RetrievalSet, depth: int) -> Ask:
        index = WordIndex(list(dataset.corpus.values()))

        def ask(query: str) -> dict[str, float]:
            begun = time.perf_counter()
            best_of(index.scores(query), depth)
            return {"search": time.perf_counter() - begun}

        return ask


class DenseEntrant:
    """The corpus lies in shards of the job's cache: a killed job finds what it had encoded."""

    def __init__(self, context: RunContext, spec: EvaluateSpec, asked: EvaluatedModel) -> None:
        self._context = context
        self.encoder = DenseEncoder(
            context, asked.ref, prompts=asked.prompts, max_length=asked.max_length, compute=spec.compute
        )
        self.facts, self.key = self.encoder.facts, self.encoder.key
        # By the id of the dataset: rankings, other precisions and latency all ask for them.
        self._shards: dict[int, list[Path]] = {}
        self._asked: dict[int, np.ndarray] = {}
        use = Use(asked.prompts)
        packing = packing_for(self.encoder.device, self.encoder.model)
        self._score = dense.make_score(self.encoder.model, use, packing, context)

    def score(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        return self._score(pairs)

    def shards(self, dataset: RetrievalSet) -> list[Path]:
        if id(dataset) not in self._shards:
            self._context.phase("encoding")
            texts = dataset.corpus.values()
            self._shards[id(dataset)] = self.encoder.shards(texts, len(texts), "documents", "document")
        return self._shards[id(dataset)]

    def asked(self, dataset: RetrievalSet) -> np.ndarray:
        """The queries' embeddings. [queries, dim]"""
        if id(dataset) not in self._asked:
            self._asked[id(dataset)] = self.encoder.vectors(dataset.queries.values())
        return self._asked[id(dataset)]

    def rank(self, dataset: RetrievalSet, depth: int) -> Ranking:
        begun = time.monotonic()
        shards, asked = self.shards(dataset), self.asked(dataset)
        self._context.phase("evaluating")

        def find(most: int) -> Nearest:
            device, check_stop = self.encoder.device, self._context.check_stop
            return search(asked, shard_vectors(shards), most, device=device, check_stop=check_stop)

        run = rank_set(dataset, depth, find)
        taken = time.monotonic() - begun
        width = 4 * asked.shape[1]
        count = len(dataset.corpus)
        return Ranking(run, taken, StoredVectors(vectors=count, bytes_per_vector=width, bytes=width * count))

    def asker(self, dataset: RetrievalSet, depth: int) -> Ask | None:
        if len(dataset.corpus) * 4 * self.encoder.dimension > _RESIDENT_BYTES:
            return None
        documents = torch.from_numpy(np.concatenate(list(shard_vectors(self.shards(dataset)))))
        documents = documents.to(self.encoder.device)
        depth = min(depth, len(documents))

        def ask(query: str) -> dict[str, float]:
            begun = time.perf_counter()
            asked = self.encoder.encode([query], "query")
            encoded = time.perf_counter()
            (asked.to(documents.device) @ documents.T).topk(depth, dim=1).indices.cpu()
            return {"encode": encoded - begun, "search": time.perf_counter() - encoded}

        return ask


class TokenEntrant:
    """MaxSim of every document, or of those that PLAID finds."""

    def __init__(self, context: RunContext, spec: EvaluateSpec, asked: EvaluatedModel) -> None:
        self._context = context
        self._encoder = TokenEncoder(
            context,
            asked.ref,
            prompts=asked.prompts,
            max_length=asked.max_length,
            prune=asked.prune_embeddings,
        )
        self.facts, self.key = self._encoder.facts, self._encoder.key
        self._use = Use(
            prompts=asked.prompts, prune_embeddings=asked.prune_embeddings, index=spec.index, seed=spec.seed
        )
        packing = packing_for(self._encoder.device, self._encoder.model)
        self._ranker = late_interaction.make_ranker(self._encoder.model, self._use, packing, context)
        self._ranker.tell = context.progress
        self._score = late_interaction.make_score(self._encoder.model, self._use, packing, context)
        self._prompts = asked.prompts

    def score(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        return self._score(pairs)

    def rank(self, dataset: RetrievalSet, depth: int) -> Ranking:
        begun = time.monotonic()
        run = self._ranker.rank(dataset, depth)
        taken = time.monotonic() - begun
        found = self._ranker.facts
        width = 2 * self._encoder.dimension  # as float16, which loses nothing here
        stored = StoredVectors(
            vectors=found["vectors"],
            bytes_per_vector=width,
            bytes=found.get("index_bytes", width * found["vectors"]),
            index=found["index"],
        )
        return Ranking(run, taken, stored)

    def asker(self, dataset: RetrievalSet, depth: int) -> Ask | None:
        prompt = self._prompts.document or ""
        texts = [prompt + text for text in dataset.corpus.values()]
        parts, held = [], 0
        for start in range(0, len(texts), TokenEncoder.SHARD):
            parts.append(self._encoder.encode(texts[start : start + TokenEncoder.SHARD], "document"))
            held += parts[-1].vectors.nbytes
            if held > _RESIDENT_BYTES:
                return None
        documents = Ragged.joined(parts)

        def ask(query: str) -> dict[str, float]:
            begun = time.perf_counter()
            asked = self._encoder.vectors([query])
            encoded = time.perf_counter()
            score_all(asked, documents, device=self._encoder.device).topk(min(depth, len(texts)), dim=1)
            return {"encode": encoded - begun, "search": time.perf_counter() - encoded}

        return ask


class PairEntrant:
    """A cross-encoder, which brings somebody else's candidates into order."""

    def __init__(
        self, context: RunContext, spec: EvaluateSpec, asked: EvaluatedModel, candidates: Candidates
    ) -> None:
        self._context, self._candidates = context, candidates
        device = context.device
        context.phase("loading")
        model = cross_encoder.load_model(context, asked.ref, device, asked.max_length)
        packing = packing_for(device, model)
        self._score = cross_encoder.make_score(model, Use(asked.prompts), packing, context)
        identity = Identity.of(model)
        self.key = identity.key(asked.prompts.model_dump())
        self.facts = SystemFacts(
            model=asked.ref,
            family="cross_encoder",
            similarity=f"score through {type(model.activation_fn).__name__}",
            weights_sha256=identity.weights_sha256,
            model_sha256=identity.model_sha256,
            max_length=model.tokenizer.model_max_length,
            prompts=asked.prompts.said(),
            device=device,
            reranks=candidates.asked.retriever,
            depth=candidates.asked.depth,
            retriever_tokenizer=TOKENIZER if candidates.asked.retriever == "bm25" else None,
        )

    def score(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        found = []
        for start in range(0, len(pairs), _SCORED_AT_ONCE):
            found.append(self._score(pairs[start : start + _SCORED_AT_ONCE]))
            done = min(start + _SCORED_AT_ONCE, len(pairs))
            self._context.progress(done, len(pairs))
        return np.concatenate(found)

    def rank(self, dataset: RetrievalSet, depth: int) -> Ranking:
        candidates = self._candidates.of(dataset)
        self._context.phase("evaluating")
        begun = time.monotonic()
        best = {
            query: {name: found[name] for name in in_order(found)[: self._candidates.asked.depth]}
            for query, found in candidates.run.items()
        }
        run: Run = {}
        queries = list(best)
        for start in range(0, len(queries), _RERANKED_AT_ONCE):
            some = {query: best[query] for query in queries[start : start + _RERANKED_AT_ONCE]}
            run |= rerank(self._score, dataset, some, depth)
            self._context.progress(len(run), len(queries))
        return Ranking(run, candidates.seconds + time.monotonic() - begun)

    def asker(self, dataset: RetrievalSet, depth: int) -> Ask | None:
        found = self._candidates.of(dataset)
        by_text = {dataset.queries[query]: list(names) for query, names in found.run.items()}
        retrieve = None if not found.seconds else self._candidates.retriever().asker(dataset, depth)

        def ask(query: str) -> dict[str, float]:
            taken = retrieve(query) if retrieve is not None else {}
            documents = [dataset.corpus[name] for name in by_text.get(query, ())][
                : self._candidates.asked.depth
            ]
            begun = time.perf_counter()
            self._score([(query, text) for text in documents])
            return {**taken, "rerank": time.perf_counter() - begun}

        return ask
