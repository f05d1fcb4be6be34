"""The ranking of a whole retrieval set, whoever finds the documents: one rule for what a query leaves out."""

from collections.abc import Callable
from itertools import islice
from typing import Literal

import torch

from core.data.retrieval_sets.judgments import RetrievalSet
from core.ranking.metrics import Run
from core.ranking.search import Nearest, search

Encode = Callable[[list[str], Literal["query", "document"]], torch.Tensor]
"""Texts -> embeddings [texts, dim], ready for a dot product (normalised where cosine is meant)."""

Find = Callable[[int], Nearest]
"""A depth -> the nearest documents of all queries of a set, both in the set's order."""


def rank_set(dataset: RetrievalSet, depth: int, find: Find) -> Run:
    """Every query's ``depth`` best documents with their scores, without those that it must leave out.

    ``find`` is asked for so many more that ``depth`` are left.
    """
    most = depth + max((len(names) for names in dataset.excluded.values()), default=0)
    nearest = find(min(most, len(dataset.corpus)))
    document_ids = list(dataset.corpus)
    run: Run = {}
    found = zip(dataset.queries, nearest.indices.tolist(), nearest.scores.tolist(), strict=True)
    for query_id, indices, scores in found:
        excluded = dataset.excluded.get(query_id, ())
        ranked = (
            (document_ids[index], score) for index, score in zip(indices, scores, strict=True) if index >= 0
        )
        kept = ((name, score) for name, score in ranked if name not in excluded)
        run[query_id] = dict(islice(kept, depth))
    return run


def rank_by_vectors(encode: Encode, dataset: RetrievalSet, depth: int) -> Run:
    """By dot products of embeddings, all of which are in memory."""
    queries = encode(list(dataset.queries.values()), "query")
    documents = encode(list(dataset.corpus.values()), "document")
    return rank_set(
        dataset, depth, lambda most: search(queries, [documents], most, device=str(documents.device))
    )
