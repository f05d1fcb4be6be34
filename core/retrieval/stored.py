"""What an embed job has made, open for queries."""

import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from core.errors import BadData, BadModel
from core.families.late_interaction import Ragged, score_all
from core.families.late_interaction.plaid import OpenPlaid
from core.native_errors import reading_data
from core.ranking.quantization import Codec, search_stored
from core.ranking.search import Nearest, update_top_k
from core.retrieval.embeddings_page import read_page
from core.retrieval.encoders import DenseEncoder, TokenEncoder
from core.runtime.context import RunContext

_KEPT = 16
"""Shards whose ids and texts stay in memory."""


@dataclass(frozen=True)
class Hit:
    """``text`` is None where texts were not kept."""

    id: str
    score: float
    text: str | None


class StoredEmbeddings:
    """A folder of embeddings with the model that made them. Raises `BadData`, and `BadModel` for another one.

    ``model`` is where that lies now; by default where it lay then.
    """

    def __init__(self, folder: Path, context: RunContext, model: str | None = None) -> None:
        self._folder = folder
        self._known: dict[int, tuple[list[str], pa.ChunkedArray | None]] = {}
        self.page = read_page(folder)
        if self.page.role != "document":
            raise BadData("these embeddings are of queries: a corpus is embedded with role document")
        reference = model or self.page.reference
        self._ends = [shard.end for shard in self.page.shards]
        prompts = self.page.prompts
        if self.page.has_token_vectors:
            self._tokens = TokenEncoder(context, reference, prompts=prompts, max_length=self.page.max_length)
            facts = self._tokens.facts
        else:
            self._dense = DenseEncoder(
                context, reference, prompts=prompts, max_length=self.page.max_length, compute="fp32"
            )
            facts = self._dense.facts
        for what, own, then in (
            ("weights", facts.weights_sha256, self.page.weights_sha256),
            ("configuration", facts.model_sha256, self.page.model_sha256),
        ):
            if then is not None and own != then:
                raise BadModel(f"{reference} is not the model that made these embeddings: its {what} differ")

    def ask(self, queries: Sequence[str], depth: int) -> list[list[Hit]]:
        """Best first, for each query."""
        depth = min(depth, self.page.texts)
        if not self.page.has_token_vectors:
            assert self.page.codec is not None
            codec = Codec.of(self.page.codec, cosine=self.page.similarity != "dot")
            nearest = search_stored(codec, self._dense.vectors(queries), self._vectors, depth)
            return [self._hits(some) for some in _pairs(nearest)]
        asked = self._tokens.vectors(queries)
        if self.page.index == "plaid":
            found = OpenPlaid(self._folder / "plaid", self._tokens.device).ask(asked, depth)
            return [self._hits(some) for some in found]
        nearest = Nearest.none(len(asked), depth)
        for number, shard in enumerate(self.page.shards):
            with reading_data(f"{self._folder.name}: shard {number} is damaged"):
                vectors = np.load(self._folder / f"vectors-{number:05}.npy")
                counts = np.load(self._folder / f"counts-{number:05}.npy")
            scores = score_all(asked, Ragged(vectors, counts), device=self._tokens.device)
            update_top_k(nearest, slice(0, len(asked)), scores, shard.begin)
        return [self._hits(some) for some in _pairs(nearest)]

    def _vectors(self) -> Iterator[np.ndarray]:
        for number in range(len(self._ends)):
            with reading_data(f"{self._folder.name}: shard {number} is damaged"):
                vectors = np.load(self._folder / f"vectors-{number:05}.npy", mmap_mode="r")
            yield vectors

    def _hits(self, found: Sequence[tuple[int, float]]) -> list[Hit]:
        hits = []
        for index, score in found:
            number = bisect_right(self._ends, index)
            place = index - self.page.shards[number].begin
            ids, texts = self._documents(number)
            hits.append(Hit(ids[place], score, texts[place].as_py() if texts is not None else None))
        return hits

    def _documents(self, number: int) -> tuple[list[str], pa.ChunkedArray | None]:
        """Ids and texts of a shard, the last few of which are kept."""
        if number not in self._known:
            texts = None
            with reading_data(f"{self._folder.name}: shard {number} is damaged"):
                ids = json.loads((self._folder / f"ids-{number:05}.json").read_text(encoding="utf-8"))
                if self.page.texts_kept:
                    path = self._folder / f"texts-{number:05}.parquet"
                    texts = pq.read_table(path, columns=["text"]).column("text")
            while len(self._known) >= _KEPT:
                del self._known[next(iter(self._known))]
            self._known[number] = (ids, texts)
        return self._known[number]


def _pairs(nearest: Nearest) -> list[list[tuple[int, float]]]:
    return [
        [(index, score) for index, score in zip(indices, scores, strict=True) if index >= 0]
        for indices, scores in zip(nearest.indices.tolist(), nearest.scores.tolist(), strict=True)
    ]
