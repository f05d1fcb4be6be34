"""The nearest documents of every query, exactly, without ever holding queries x corpus.

Documents come in shards that are read one after the other; each block of queries keeps its best so far.
Memory: one shard, one block of scores, and the best of all queries.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

_SCORES = 1 << 24
"""Numbers in a block of scores: 64 MiB in float32."""


@dataclass(frozen=True)
class Nearest:
    """``indices`` and ``scores`` [queries, depth], best first; equal scores by index. -1 and -inf: there are
    no more."""

    indices: np.ndarray
    scores: np.ndarray


def shard_vectors(paths: Sequence[Path]) -> Iterator[np.ndarray]:
    """Embeddings [texts, dim] of one shard after the other, read and not mapped."""
    for path in paths:
        yield np.load(path)


def search(
    queries: np.ndarray,
    shards: Iterable[np.ndarray],
    depth: int,
    *,
    device: str = "cpu",
    scores_per_block: int = _SCORES,
    check_stop: Callable[[], None] = lambda: None,
) -> Nearest:
    """The ``depth`` documents of the highest dot product for every query.

    queries [queries, dim]; shards [documents, dim] one after the other, whose documents are counted through.
    """
    best_scores = np.full((len(queries), depth), -np.inf, np.float32)
    best_indices = np.full((len(queries), depth), -1, np.int64)
    asked = torch.from_numpy(np.ascontiguousarray(queries, np.float32))
    begin = 0
    for shard in shards:
        documents = torch.from_numpy(np.asarray(shard, np.float32)).to(device)
        rows = max(1, scores_per_block // max(1, len(documents)))
        for start in range(0, len(asked), rows):
            check_stop()
            block = slice(start, start + rows)
            scores = asked[block].to(device) @ documents.T  # [block, documents]
            top = scores.topk(min(depth, len(documents)), dim=1)
            _merge(best_scores[block], best_indices[block], top.values, top.indices + begin)
        begin += len(documents)
    return Nearest(best_indices, best_scores)


def _merge(best: np.ndarray, indices: np.ndarray, scores: torch.Tensor, found: torch.Tensor) -> None:
    """Puts what was found among the best so far, in place. Both [block, some]."""
    all_scores = np.concatenate([best, scores.float().cpu().numpy()], axis=1)
    all_indices = np.concatenate([indices, found.cpu().numpy()], axis=1)
    order = np.lexsort((all_indices, -all_scores), axis=1)[:, : best.shape[1]]
    best[:] = np.take_along_axis(all_scores, order, axis=1)
    indices[:] = np.take_along_axis(all_indices, order, axis=1)
