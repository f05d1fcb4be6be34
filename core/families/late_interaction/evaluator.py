"""Texts into their tokens' vectors, and rankings by exact MaxSim."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from core.data.retrieval_sets.judgments import RetrievalSet
from core.engine.batching import Packing
from core.engine.encoding import make_micro_batches
from core.engine.inference import check_finite, pieces_of
from core.engine.micro_batches import MicroBatch
from core.families.family import Rank, Use
from core.families.late_interaction.colbert import ColBERT
from core.families.late_interaction.maxsim import Ragged, score_all, score_pairs
from core.families.late_interaction.objective import token_vectors
from core.families.late_interaction.plaid import INDEXED_AT_ONCE, PlaidIndex, check_plaid
from core.families.late_interaction.reader import Reader
from core.ranking.metrics import Run
from core.ranking.rank_set import rank_set
from core.ranking.search import Nearest, merge, update_top_k
from core.ranking.triplets import Score
from core.runtime.context import RunContext
from core.spec.parts.models import PruneEmbeddings
from core.stack import has_pylate

_CHUNK = 512
"""Documents that are encoded, and then asked, together."""

_QUERIES = 256

_EXACT_PAIRS = 500_000_000
"""Of queries and documents, up to which ``index: auto`` scores every one. Documents are encoded anyway: with
MiniLM 21 million operations a token, to which each thousand queries adds 8 million."""

EncodeTokens = Callable[[list[str], Literal["query", "document"]], Ragged]
"""Texts -> the vectors of their tokens, normalised, without those that the model leaves out."""


def make_encode(
    model: ColBERT,
    packing: Packing,
    check_stop: Callable[[], None],
    *,
    prune: PruneEmbeddings | None = None,
) -> EncodeTokens:
    """An encoder in the model's own lengths, with its own [Q] and [D], skiplist and query expansion.

    It asks ``check_stop`` between micro-batches. Raises `OutOfMemory` when not even one text fits, and
    `NotFinite` for vectors that cannot be compared.
    """
    reader = Reader(model, prune)
    compute = partial(_vectors, prune)

    def encode(texts: list[str], role: Literal["query", "document"]) -> Ragged:
        lengths = {"query": model.query_length, "document": model.document_length}
        read = reader.query if role == "query" else reader.document
        inputs = [read(ids, lengths[role]) for ids in _tokens(model, texts, lengths[role])]
        batch = make_micro_batches(reader.frame, inputs, packing)
        pieces = pieces_of(model, batch.parts, compute, "encode a single text", check_stop)
        vectors = np.concatenate(pieces)[batch.positions.numpy()]
        check_finite(model, vectors, "vectors")
        return Ragged(vectors, np.array([found.vectors for found in inputs], np.int64))

    return encode


def _vectors(prune: PruneEmbeddings | None, model: ColBERT, micro_batch: MicroBatch) -> np.ndarray:
    """[vectors, dim]"""
    return token_vectors(prune)(model, dict(micro_batch)).cpu().numpy()


def _tokens(model: ColBERT, texts: list[str], limit: int) -> Sequence[Sequence[int]]:
    """Without special ones."""
    return model.tokenizer(
        texts, add_special_tokens=False, truncation=True, max_length=limit, padding=False, verbose=False
    )["input_ids"]


def make_ranker(model: ColBERT, use: Use, packing: Packing, context: RunContext) -> "Ranker":
    encode = make_encode(model, packing, context.check_stop, prune=use.prune_embeddings)
    return Ranker(encode, use, model.device.type, context.folder, context.check_stop)


def make_rank(model: ColBERT, use: Use, packing: Packing, context: RunContext) -> Rank:
    return make_ranker(model, use, packing, context).rank


def make_score(model: ColBERT, use: Use, packing: Packing, context: RunContext) -> Score:
    encode = make_encode(model, packing, context.check_stop, prune=use.prune_embeddings)
    before, within = use.prompts.query or "", use.prompts.document or ""

    def score(pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        found = []
        for start in range(0, len(pairs), _CHUNK):
            some = pairs[start : start + _CHUNK]
            queries = encode([before + query for query, _ in some], "query")
            documents = encode([within + document for _, document in some], "document")
            found.append(score_pairs(queries, documents, np.repeat(np.arange(len(some))[:, None], 2, axis=1)))
        return np.concatenate(found)

    return score


class Ranker:
    """Documents are encoded, asked by all queries, and forgotten: memory does not grow with the corpus."""

    def __init__(
        self,
        encode: EncodeTokens,
        use: Use,
        device: str,
        work: Path,
        check_stop: Callable[[], None],
    ) -> None:
        """``work`` is a folder for an index. ``facts`` are of the last dataset."""
        check_plaid(use.index)
        self._encode, self._use, self._device, self._work = encode, use, device, work
        self._check_stop = check_stop
        self.facts: dict[str, Any] = {}
        self.tell: Callable[[int, int], None] = lambda _done, _total: None
        """Hears how many of how many documents have been read."""

    def rank(self, dataset: RetrievalSet, depth: int) -> Run:
        """As ``use`` says, exactly or by an index."""
        pairs = len(dataset.queries) * len(dataset.corpus)
        many = self._use.index == "auto" and pairs > _EXACT_PAIRS and has_pylate()
        if self._use.index == "plaid" or many:
            self._work.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self._work) as folder:
                return self.by_index(dataset, depth, Path(folder))
        return self.exactly(dataset, depth)

    def exactly(self, dataset: RetrievalSet, depth: int) -> Run:
        """By MaxSim of every query with every document."""
        return rank_set(dataset, depth, lambda most: self._nearest(dataset, most))

    def _nearest(self, dataset: RetrievalSet, depth: int) -> Nearest:
        asked = self._queries(dataset)
        best = Nearest.none(len(asked), depth)
        texts, order = self._documents(dataset)
        self.facts = {"index": "exact", "vectors": 0}
        for begin, documents in self._encoded(texts, order):
            self.facts["vectors"] += len(documents.vectors)
            for start in range(0, len(asked), _QUERIES):
                self._check_stop()
                block = slice(start, min(start + _QUERIES, len(asked)))
                update_top_k(best, block, score_all(asked.span(block), documents, device=self._device), begin)
        return Nearest(np.where(best.indices >= 0, order[best.indices], -1), best.scores)

    def by_index(self, dataset: RetrievalSet, depth: int, folder: Path) -> Run:
        """PLAID finds the documents; they are encoded once more and scored exactly."""
        return rank_set(dataset, depth, lambda most: self._nearest_by_index(dataset, most, folder))

    def _nearest_by_index(self, dataset: RetrievalSet, depth: int, folder: Path) -> Nearest:
        asked = self._queries(dataset)
        texts, order = self._documents(dataset)
        index = PlaidIndex(folder, self._device, self._use.seed)
        waiting: list[Ragged] = []
        self.facts = {"index": "plaid", "vectors": 0}
        for begin, documents in self._encoded(texts, order):
            self.facts["vectors"] += len(documents.vectors)
            waiting.append(documents)
            if len(waiting) == INDEXED_AT_ONCE or begin + _CHUNK >= len(order):
                together = Ragged.joined(waiting)
                index.add(together, begin + len(documents) - len(together))
                waiting = []
        files = (path for path in folder.rglob("*") if path.is_file())
        self.facts["index_bytes"] = sum(path.stat().st_size for path in files)
        found = index.ask(asked, depth)
        scores = np.full(found.shape, -np.inf, np.float32)
        known = np.unique(found[found >= 0])
        for begin, documents in self._encoded(texts, order[known]):
            some = known[begin : begin + len(documents)]
            rows, places = np.nonzero(np.isin(found, some))
            pairs = np.stack([rows, np.searchsorted(some, found[rows, places])], axis=1)
            scores[rows, places] = score_pairs(asked, documents, pairs)
        best = merge([Nearest(found, scores)], found.shape[1])
        return Nearest(np.where(best.indices >= 0, order[best.indices], -1), best.scores)

    def _queries(self, dataset: RetrievalSet) -> Ragged:
        prompt = self._use.prompts.query or ""
        return self._encode([prompt + text for text in dataset.queries.values()], "query")

    def _documents(self, dataset: RetrievalSet) -> tuple[list[str], np.ndarray]:
        """Their texts, and their order, longest first: so those encoded together are of similar length."""
        prompt = self._use.prompts.document or ""
        texts = [prompt + text for text in dataset.corpus.values()]
        return texts, np.argsort([-len(text) for text in texts], kind="stable")

    def _encoded(self, texts: list[str], order: np.ndarray) -> Iterator[tuple[int, Ragged]]:
        """(place in the order, vectors) of some documents after the other."""
        for begin in range(0, len(order), _CHUNK):
            some = order[begin : begin + _CHUNK].tolist()
            yield begin, self._encode([texts[index] for index in some], "document")
            self.tell(begin + len(some), len(order))
