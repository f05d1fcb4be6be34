"""The nearest documents of every query, most of them: faiss's inverted lists of whole vectors."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from core.errors import BadSpec
from core.ranking.search import Nearest

_PROBED = 32
_TRAINED_ON = 64
_AT_ONCE = 1024
_SMALLEST_LIST = 39
"""Vectors that faiss wants for each centroid."""


def check_faiss() -> None:
    """Raise `BadSpec` where faiss is not installed."""
    try:
        import faiss  # noqa: F401
    except ImportError as error:
        raise BadSpec("index faiss needs the package faiss-cpu where the job runs") from error


def search_with_faiss(
    queries: np.ndarray,
    shards: Sequence[np.ndarray],
    depth: int,
    *,
    seed: int,
    check_stop: Callable[[], None] = lambda: None,
) -> Nearest:
    """Score the lists of each query's nearest centroids (Douze et al. 2024, arXiv 2401.08281).

    queries [queries, dim]; shards [documents, dim], all in memory, whose documents are counted through.
    Fewer documents than one list wants are all scored. Raises `BadSpec` without faiss.
    """
    check_faiss()
    import faiss

    total = sum(map(len, shards))
    lists = max(1, min(4 * int(total**0.5), total // _SMALLEST_LIST))
    index: Any = faiss.index_factory(queries.shape[1], f"IVF{lists},Flat", faiss.METRIC_INNER_PRODUCT)
    wanted = max(1, -(-lists * _TRAINED_ON // len(shards)))
    drawn = np.random.default_rng(seed)
    index.train(
        np.concatenate(
            [shard[np.sort(drawn.permutation(len(shard))[:wanted])].astype(np.float32) for shard in shards]
        )
    )
    for shard in shards:
        check_stop()
        index.add(shard.astype(np.float32))
    index.nprobe = min(lists, max(_PROBED, lists // 8))
    best = Nearest.none(len(queries), depth)
    for start in range(0, len(queries), _AT_ONCE):
        check_stop()
        block = slice(start, start + _AT_ONCE)
        best.scores[block], best.indices[block] = index.search(queries[block], depth)
    return best
