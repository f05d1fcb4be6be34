"""The nearest documents of every query, exactly, without ever holding queries x corpus.

Documents come in shards that are read one after the other; each block of queries keeps its best so far.
Memory: one shard, one block of scores, and the best of all queries.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from core.errors import BadModel
from core.native_errors import reading_cache

SCORES = 1 << 24
"""Numbers in a block of scores: 64 MiB in float32."""


@dataclass(frozen=True)
class Nearest:
    """``indices`` and ``scores`` [queries, depth], best first; equal scores by index. -1 and -inf: there are
    no more."""

    indices: np.ndarray
    scores: np.ndarray

    @classmethod
    def none(cls, queries: int, depth: int) -> "Nearest":
        """Of nothing yet."""
        return cls(np.full((queries, depth), -1, np.int64), np.full((queries, depth), -np.inf, np.float32))


def shard_vectors(paths: Sequence[Path]) -> Iterator[np.ndarray]:
    """Embeddings [texts, dim] of one shard after the other, read and not mapped. Raises `BadModel`."""
    for path in paths:
        with reading_cache(path):
            vectors = np.load(path)
        check_shard(vectors)
        yield vectors


def check_shard(vectors: np.ndarray) -> None:
    """Raise `BadModel` for embeddings that are not finite: a search would pass over their texts silently."""
    if not np.isfinite(vectors).all():
        raise BadModel(
            "the stored embeddings have values that are not finite numbers (NaN or infinity): the model is "
            "broken, or its values are too large for float16 (half: false keeps float32)"
        )


def search(
    queries: np.ndarray | torch.Tensor,
    shards: Iterable[np.ndarray | torch.Tensor],
    depth: int,
    *,
    begin: int = 0,
    device: str = "cpu",
    scores_per_block: int = SCORES,
    check_stop: Callable[[], None] = lambda: None,
) -> Nearest:
    """The ``depth`` documents of the highest dot product for every query.

    queries [queries, dim]; shards [documents, dim] one after the other, whose documents are counted through
    from ``begin``.
    """
    best = Nearest.none(len(queries), depth)
    asked = torch.as_tensor(queries, dtype=torch.float32)
    for shard in shards:
        documents = torch.as_tensor(shard, dtype=torch.float32, device=device)
        rows = max(1, scores_per_block // max(1, len(documents)))
        for start in range(0, len(asked), rows):
            check_stop()
            block = slice(start, start + rows)
            scores = asked[block].to(device) @ documents.T  # [block, documents]
            update_top_k(best, block, scores, begin)
        begin += len(documents)
    return best


def update_top_k(best: Nearest, block: slice, scores: torch.Tensor, begin: int) -> None:
    """What of a block of scores, whose columns count from ``begin``, belongs to the best so far.

    After the first shards that is little: looking for it costs a fraction of choosing the block's best.
    """
    depth = best.scores.shape[1]
    worst = torch.from_numpy(best.scores[block, -1:]).to(scores.device)
    hits = scores > worst  # who is as good as the worst comes too late
    if scores.shape[1] > depth and int(hits.sum()) > len(scores) * depth:
        hits &= scores >= scores.topk(depth, dim=1).values[:, -1:]
    rows, columns = _where(hits)
    if not len(rows):
        return
    counts = np.bincount(rows, minlength=len(scores))
    changed = np.flatnonzero(counts)
    place = np.arange(len(rows)) - (np.cumsum(counts) - counts)[rows]  # of each hit in its row
    row = (np.cumsum(counts > 0) - 1)[rows]
    found = Nearest.none(len(changed), int(counts.max()))
    found.scores[row, place] = scores[torch.from_numpy(rows), torch.from_numpy(columns)].cpu().numpy()
    found.indices[row, place] = columns + begin
    of_block = block.start + changed
    merged = merge([Nearest(best.indices[of_block], best.scores[of_block]), found], depth)
    best.indices[of_block], best.scores[of_block] = merged.indices, merged.scores


def _where(hits: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    if hits.is_cuda:
        rows, columns = hits.nonzero(as_tuple=True)
        return rows.cpu().numpy(), columns.cpu().numpy()
    return np.divmod(np.flatnonzero(hits.numpy()), hits.shape[1])  # several times faster than torch's


def merge(found: Sequence[Nearest], depth: int) -> Nearest:
    """The best of all, for each query. Of equal scores those of the first come first: they must have the
    lower indices."""
    scores = torch.from_numpy(np.concatenate([nearest.scores for nearest in found], axis=1))
    order = scores.sort(dim=1, descending=True, stable=True).indices[:, :depth].numpy()
    indices = np.concatenate([nearest.indices for nearest in found], axis=1)
    return Nearest(
        np.take_along_axis(indices, order, axis=1), np.take_along_axis(scores.numpy(), order, axis=1)
    )
