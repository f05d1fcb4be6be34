"""Exact retrieval over a whole corpus, block by block: the full queries x corpus matrix is never made."""

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Literal

import torch

from core.data.retrieval_sets.judgments import RetrievalSet
from core.ranking.metrics import Run

Encode = Callable[[list[str], Literal["query", "document"]], torch.Tensor]
"""Texts -> embeddings [texts, dim], ready for a dot product (normalised where cosine is meant)."""

_SCORES_PER_BLOCK = 1 << 24


def search(queries: torch.Tensor, documents: torch.Tensor, depth: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The ``depth`` best documents of every query by dot product.

    queries [queries, dim], documents [documents, dim] -> scores and indices, both [queries, depth],
    best first. Memory: one block of about 2^24 scores.
    """
    depth = min(depth, len(documents))
    rows = max(1, min(len(queries), _SCORES_PER_BLOCK // max(1, len(documents))))
    found = [(block @ documents.T).topk(depth, dim=1) for block in queries.split(rows)]
    return torch.cat([top.values for top in found]), torch.cat([top.indices for top in found])


def rank(encode: Encode, dataset: RetrievalSet, depth: int) -> Run:
    """Every query's ``depth`` best documents with their scores, without those that it must leave out."""
    queries = encode(list(dataset.queries.values()), "query")
    documents = encode(list(dataset.corpus.values()), "document")
    scores, indices = search(queries, documents, depth_with_excluded(dataset, depth))
    return run_of(dataset, indices.tolist(), scores.tolist(), depth)


def depth_with_excluded(dataset: RetrievalSet, depth: int) -> int:
    """How many documents a query must find, so that ``depth`` are left without those that it leaves out."""
    most = depth + max((len(names) for names in dataset.excluded.values()), default=0)
    return min(most, len(dataset.corpus))


def run_of(
    dataset: RetrievalSet, indices: Iterable[Sequence[int]], scores: Iterable[Sequence[float]], depth: int
) -> Run:
    """From numbers of documents and their scores, both best first for every query; -1: there are no more."""
    document_ids = list(dataset.corpus)
    run: Run = {}
    for query_id, of_query, values in zip(dataset.queries, indices, scores, strict=True):
        excluded = dataset.excluded.get(query_id, ())
        ranked = (
            (document_ids[index], value) for index, value in zip(of_query, values, strict=True) if index >= 0
        )
        kept = ((name, value) for name, value in ranked if name not in excluded)
        run[query_id] = dict(islice(kept, depth))
    return run
