"""Vectors in fewer bytes: how they are stored, and how queries are scored against them.

``int8`` puts each dimension's range, as a sample has it, into 256 steps; what lies outside is clipped, where
plain casting would wrap it around. Queries keep their floats: a query times the steps is as cheap as two int8
vectors, and loses nothing of the query. ``binary`` keeps signs: documents are found by Hamming distance, and
the best of them scored again with the query's floats (Yamada et al. 2021, arXiv 2106.00882).
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.ranking.search import Nearest, search
from core.spec.embed import Precision


@dataclass(frozen=True)
class Codec:
    """How vectors are stored. ``dimension``: only the first so many are kept, and with ``cosine`` they are
    given length 1 again. ``low`` and ``step`` [dim] are int8's."""

    precision: Precision
    dimension: int
    cosine: bool
    low: np.ndarray | None = None
    step: np.ndarray | None = None

    @classmethod
    def fitted(
        cls, precision: Precision, dimension: int, *, cosine: bool, sample: Iterable[np.ndarray]
    ) -> "Codec":
        """``sample``: some blocks [vectors, full dim] of what will be stored; int8 alone looks at them."""
        bare = cls(precision, dimension, cosine)
        if precision != "int8":
            return bare
        low, high = np.full(dimension, np.inf, np.float32), np.full(dimension, -np.inf, np.float32)
        for block in sample:
            cut = bare.cut(block)
            low, high = np.minimum(low, cut.min(0)), np.maximum(high, cut.max(0))
        step = np.maximum((high - low) / 255, np.float32(1e-12))
        return cls(precision, dimension, cosine, low, step)

    @property
    def bytes_per_vector(self) -> int:
        """As stored, without ids."""
        return {
            "float32": 4 * self.dimension,
            "float16": 2 * self.dimension,
            "int8": self.dimension,
            "binary": -(-self.dimension // 8),
        }[self.precision]

    def cut(self, vectors: np.ndarray) -> np.ndarray:
        """[vectors, full dim] -> float32 [vectors, dimension]"""
        found = vectors[:, : self.dimension].astype(np.float32)
        if self.cosine and self.dimension < vectors.shape[1]:
            found /= np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
        return found

    def encode(self, vectors: np.ndarray) -> np.ndarray:
        """[vectors, full dim] -> what is stored: [vectors, dimension]; of binary uint8 [vectors, bytes], the
        first dimension in the highest bit, 1 above 0 (as `numpy.packbits` has it)."""
        cut = self.cut(vectors)
        if self.precision == "float16":
            return cut.astype(np.float16)
        if self.precision == "int8":
            assert self.low is not None
            steps = np.rint((cut - self.low) / self.step) - 128
            return np.clip(steps, -128, 127).astype(np.int8)
        if self.precision == "binary":
            return np.packbits(cut > 0, axis=1)
        return cut

    def decode(self, stored: np.ndarray) -> np.ndarray:
        """What queries are scored against. float32 [vectors, dimension]; of binary 1 and -1."""
        if self.precision == "int8":
            assert self.low is not None
            assert self.step is not None
            return (stored.astype(np.float32) + 128) * self.step + self.low
        if self.precision == "binary":
            bits = np.unpackbits(stored, axis=1, count=self.dimension)
            return bits.astype(np.float32) * 2 - 1
        return stored.astype(np.float32)

    def as_dict(self) -> dict[str, Any]:
        """For a page of facts. ``low`` and ``step``: value = (stored + 128) * step + low."""
        found: dict[str, Any] = {"precision": self.precision, "dimension": self.dimension}
        found["bytes_per_vector"] = self.bytes_per_vector
        if self.low is not None and self.step is not None:
            found |= {"low": self.low.tolist(), "step": self.step.tolist()}
        return found

    @classmethod
    def of(cls, facts: dict[str, Any], *, cosine: bool) -> "Codec":
        """From what `as_dict` gave."""
        low, step = (np.array(facts[name], np.float32) if name in facts else None for name in ("low", "step"))
        return cls(facts["precision"], facts["dimension"], cosine, low, step)


def search_stored(
    codec: Codec,
    queries: np.ndarray,
    stored: Callable[[], Iterable[np.ndarray]],
    depth: int,
    *,
    rescore: int = 4,
    device: str = "cpu",
    check_stop: Callable[[], None] = lambda: None,
) -> Nearest:
    """The ``depth`` best documents of every query by what is stored of them.

    queries [queries, full dim]; ``stored`` gives the blocks of `Codec.encode`, from the first on, as often as
    it is called. Memory: one block in float32, beside what `search` needs.
    """
    asked = codec.cut(queries)

    def decoded() -> Iterator[np.ndarray]:
        for block in stored():
            yield codec.decode(block)

    if codec.precision != "binary":
        return search(asked, decoded(), depth, device=device, check_stop=check_stop)
    # Of signs the dot product is dimension - 2 * Hamming distance: the same order.
    signs = np.where(asked > 0, np.float32(1), np.float32(-1))
    near = search(signs, decoded(), depth * rescore, device=device, check_stop=check_stop)
    if rescore == 1:
        return near
    scores = np.full(near.indices.shape, -np.inf, np.float32)
    begin = 0
    for block in decoded():
        check_stop()
        rows, places = np.nonzero((near.indices >= begin) & (near.indices < begin + len(block)))
        found = near.indices[rows, places] - begin
        for start in range(0, len(rows), 65_536):
            some = slice(start, start + 65_536)
            scores[rows[some], places[some]] = np.einsum("ij,ij->i", asked[rows[some]], block[found[some]])
        begin += len(block)
    order = np.lexsort((near.indices, -scores), axis=1)[:, :depth]
    return Nearest(np.take_along_axis(near.indices, order, 1), np.take_along_axis(scores, order, 1))
