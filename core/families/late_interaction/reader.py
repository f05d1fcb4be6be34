"""Token ids into what a late-interaction model reads, as PyLate tokenizes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from core.engine.models.loading import context_length
from core.engine.tokens import Frame, Ids, Input
from core.families.cutting import Cut, make_cut
from core.families.family import VectorsPerDocument
from core.families.late_interaction.colbert import ColBERT
from core.families.late_interaction.pooling import vectors_left
from core.spec.parts.models import PruneEmbeddings
from core.spec.parts.training import Lengths
from core.spec.train import TrainSpec

KEPT = "kept"
"""Beside a text's tokens, which of them become vectors: 1 of a query, 2 of a document, 0 none."""


@dataclass(frozen=True)
class VectorCounts:
    """Which vectors of a batch's output are whose."""

    of_texts: np.ndarray
    """[queries + documents]"""
    floored: np.ndarray
    """[documents]: those that PyLate would pad. There a token of the query that resembles nothing scores 0,
    because padding does."""


class Reader:
    """Queries with [Q], filled up with masks where the model expands them; documents with [D], whose
    punctuation (the model's skiplist) is read and gives no vector.

    Queries and documents go through the model together. What comes out of it are [vectors of all texts, dim].
    """

    def __init__(self, model: ColBERT, prune: PruneEmbeddings | None = None, cut: Cut | None = None) -> None:
        self._cut = cut or Cut()
        self.frame = Frame.of(model.tokenizer)
        self._prefix = {"query": model.query_prefix_id, "document": model.document_prefix_id}
        self.specials = {
            role: self.frame.specials + (prefix is not None) for role, prefix in self._prefix.items()
        }
        self.configured = {"query": model.query_length, "document": model.document_length}
        # How many masks a query is filled up with is something that the model has learned.
        expands = model.do_query_expansion and getattr(model, "trained", False)
        self.fixed = {"query": model.query_length} if expands else {}
        self._skipped = np.array(model.skiplist, np.int64)
        self._expands, self._attends = model.do_query_expansion, model.attend_to_expansion_tokens
        self._mask = model.tokenizer.pad_token_id
        self._left: Callable[[int], int] = (lambda count: vectors_left(count, prune)) if prune else int

    def read(
        self,
        queries: Sequence[Ids],
        documents: Sequence[Ids],
        owners: Sequence[int],
        lengths: dict[str, int],
    ) -> tuple[list[Input], VectorCounts]:
        inputs = [self.query(text, lengths["query"]) for text in queries]
        inputs += [self.document(text, lengths["document"]) for text in documents]
        counts = np.array([found.vectors for found in inputs], np.int64)
        return inputs, VectorCounts(counts, counts[len(queries) :] < lengths["document"])

    def query(self, ids: Ids, limit: int) -> Input:
        framed = self._put("query", ids, limit)
        attention = np.ones_like(framed)
        if self._expands:
            missing = limit - len(framed)
            ends = (missing, 0) if self.frame.pads_left else (0, missing)
            framed = np.pad(framed, ends, constant_values=self._mask)
            attention = np.pad(attention, ends, constant_values=int(self._attends))
        kept = np.ones_like(framed)
        return Input(framed, {"attention_mask": attention, KEPT: kept}, len(framed))

    def document(self, ids: Ids, limit: int) -> Input:
        framed = self._put("document", self._cut(ids, limit - self.specials["document"]), limit)
        kept = ~np.isin(framed, self._skipped)
        beside = {"attention_mask": np.ones_like(framed), KEPT: 2 * kept.astype(np.int64)}
        return Input(framed, beside, self._left(int(kept.sum())))

    def count_vectors(self, documents: Sequence[Ids], lengths: dict[str, int]) -> VectorsPerDocument:
        inputs = [self.document(text, lengths["document"]) for text in documents]
        whole = [int((found.beside[KEPT] > 0).sum()) for found in inputs]
        return VectorsPerDocument(
            mean=round(float(np.mean([found.vectors for found in inputs])), 1),
            unpruned=round(float(np.mean(whole)), 1),
        )

    def _put(self, role: str, ids: Ids, limit: int) -> np.ndarray:
        prefix = self._prefix[role]
        if prefix is None:
            return self.frame.put(ids, limit)
        return np.insert(self.frame.put(ids, limit - 1), 1, prefix)


def make_reader(model: ColBERT, spec: TrainSpec) -> Reader:
    return Reader(model, spec.prune_embeddings, make_cut(model.tokenizer, spec.lengths))


def set_lengths(model: ColBERT, lengths: dict[str, int], asked: Lengths) -> None:
    query, document = lengths["query"], lengths["document"]
    if asked.saved == "base" and model.trained:
        query, document = max(query, model.query_length), max(document, model.document_length)
    elif asked.saved == "base":
        # An encoder's length is that of documents that are given none; queries are filled up to theirs.
        if asked.document == "auto":
            document = max(document, min(context_length(model), model[0].max_seq_length or 0))
        if asked.query == "auto" and not model.do_query_expansion:
            query = max(query, document)
    model.query_length, model.document_length = query, document


def saved_lengths(model: ColBERT) -> dict[str, int]:
    return {"query": model.query_length, "document": model.document_length}
