"""Fewer vectors a document, after the model: near ones averaged, or the most attended to kept.

How many are left follows from how many there were, so that a batch's layout is known before its vectors are.
What is averaged or kept is chosen without a gradient; the gradient goes through what was chosen.
"""

import itertools
import math

import numpy as np
import torch
from scipy.cluster import hierarchy

from core.spec.parts.models import PruneEmbeddings

_AT_ONCE = 1024
"""Vectors that are clustered together. Distances take the square of it: a document of 8,192 tokens is pooled
in eight stretches of 4 MB each instead of at once with 270 MB."""


def vectors_left(count: int, asked: PruneEmbeddings) -> int:
    """Of a document's so many vectors."""
    first = min(count, asked.protected_tokens)
    rest = count - first
    if rest < 2:
        return count
    if asked.strategy == "attention":
        return first + max(1, math.ceil(asked.keep_ratio * rest))
    return first + sum(_clusters(end - start, asked.pool_factor) for start, end in _stretches(rest))


def prune(vectors: torch.Tensor, asked: PruneEmbeddings) -> torch.Tensor:
    """vectors [tokens, dim] of one document, normalised -> [fewer, dim]: see `vectors_left`."""
    first, rest = vectors[: asked.protected_tokens], vectors[asked.protected_tokens :]
    if len(rest) < 2:
        return vectors
    if asked.strategy == "attention":
        keep = vectors_left(len(vectors), asked) - len(first)
        return torch.cat([first, rest[_most_attended(rest.detach(), keep)]])
    pooled = [
        _pool(rest[start:end], _clusters(end - start, asked.pool_factor))
        for start, end in _stretches(len(rest))
    ]
    return torch.cat([first, *pooled])


def _clusters(count: int, factor: float) -> int:
    return max(1, int(count / factor))


def _stretches(count: int) -> list[tuple[int, int]]:
    """Of about the same length, none longer than `_AT_ONCE`."""
    parts = -(-count // _AT_ONCE)
    bounds = [count * number // parts for number in range(parts + 1)]
    return list(itertools.pairwise(bounds))


def _pool(vectors: torch.Tensor, clusters: int) -> torch.Tensor:
    """The means of clusters: Ward's method on cosine distances (Clavié et al. 2024, arXiv 2409.14683).

    [tokens, dim] -> [clusters, dim]
    """
    if clusters >= len(vectors):
        return vectors
    labels = torch.from_numpy(_ward(vectors.detach().float().cpu().numpy(), clusters)).to(vectors.device)
    sums = vectors.new_zeros(clusters, vectors.shape[1]).index_add(0, labels, vectors)
    return sums / torch.bincount(labels, minlength=clusters)[:, None]


def _ward(vectors: np.ndarray, clusters: int) -> np.ndarray:
    """Labels [tokens] from 0 on, by the clusters' first tokens. Exactly so many clusters: ties are merged one
    after the other, where scipy's ``fcluster`` may return fewer."""
    count = len(vectors)
    distances = 1 - vectors @ vectors.T
    merges = hierarchy.linkage(distances[np.triu_indices(count, 1)], method="ward")
    parent = np.arange(2 * count - 1)
    for number, (one, other) in enumerate(merges[: count - clusters, :2].astype(int).tolist()):
        parent[[one, other]] = count + number
    for node in range(2 * count - clusters - 1, -1, -1):  # from the roots down
        parent[node] = parent[parent[node]]
    roots = parent[:count]
    _, firsts, labels = np.unique(roots, return_index=True, return_inverse=True)
    place = np.empty(len(firsts), np.int64)
    place[np.argsort(firsts)] = np.arange(len(firsts))
    return place[labels]


def _most_attended(vectors: torch.Tensor, keep: int) -> torch.Tensor:
    """Numbers of the vectors that the document's own attend to most, in their order.

    Attention as in a transformer's layer, of the vectors to each other: a column's mean says how much the
    document's tokens have to do with that one.
    """
    received = torch.zeros(len(vectors), device=vectors.device)
    for block in vectors.split(_AT_ONCE):
        received += (math.sqrt(vectors.shape[1]) * (block @ vectors.T)).softmax(1).sum(0)
    return received.topk(keep).indices.sort().values
