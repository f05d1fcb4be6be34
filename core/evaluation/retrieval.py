"""Exact retrieval over a whole corpus, block by block: the full queries x corpus matrix is never made."""

from collections.abc import Callable
from itertools import islice
from typing import Literal

import torch

from core.data.judged import RetrievalSet
from core.evaluation.metrics import Run, depth_of, evaluate_run, mean

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
    query_ids, document_ids = list(dataset.queries), list(dataset.corpus)
    queries = encode(list(dataset.queries.values()), "query")
    documents = encode(list(dataset.corpus.values()), "document")
    most_excluded = max((len(names) for names in dataset.excluded.values()), default=0)
    scores, indices = search(queries, documents, depth + most_excluded)
    run: Run = {}
    for query_id, of_query, values in zip(query_ids, indices.tolist(), scores.tolist(), strict=True):
        excluded = dataset.excluded.get(query_id, ())
        ranked = ((document_ids[index], value) for index, value in zip(of_query, values, strict=True))
        kept = ((name, value) for name, value in ranked if name not in excluded)
        run[query_id] = dict(islice(kept, depth))
    return run


def evaluate_retrieval(encode: Encode, dataset: RetrievalSet, metrics: list[str]) -> dict[str, float]:
    """The mean of every metric over the judged queries."""
    run = rank(encode, dataset, depth_of(metrics))
    return {metric: mean(scores) for metric, scores in evaluate_run(dataset.qrels, run, metrics).items()}
