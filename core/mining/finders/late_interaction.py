"""A late-interaction model's nearest documents: exact MaxSim, or by PLAID and scored again."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from core.families.late_interaction import Ragged, score_all, score_pairs
from core.families.late_interaction.plaid import INDEXED_AT_ONCE, PlaidIndex, check_plaid
from core.mining.finders.base import Found
from core.mining.read_input import Gathered
from core.ranking.search import Nearest, merge, update_top_k
from core.retrieval.encoders import TokenEncoder, read_tokens
from core.runtime.context import RunContext
from core.spec.mine import MineSpec
from core.stack import has_pylate

_QUERIES = 256
_EXACT = 20_000
"""Documents up to which ``index: auto`` scores every one."""


class LateInteractionFinder:
    def __init__(self, spec: MineSpec, context: RunContext) -> None:
        check_plaid(spec.index)
        self._spec, self._context = spec, context
        self._encoder = TokenEncoder(
            context,
            spec.model,
            prompts=spec.prompts,
            max_length=spec.max_length,
            half=spec.half,
            batch_size=spec.batch_size,
        )
        self._device = self._encoder.device
        self.facts = self._encoder.facts

    def find(self, gathered: Gathered, depth: int) -> Found:
        self._context.phase("encoding")
        of_documents = self._encoder.shards(
            gathered.documents.all_texts(), len(gathered.documents), "documents", "document"
        )
        of_queries = self._encoder.shards(
            gathered.queries.all_texts(), len(gathered.queries), "queries", "query"
        )
        self._context.phase("mining")
        asked = Ragged.joined([read_tokens(path) for path in of_queries])
        many = self._spec.index == "auto" and gathered.candidates > _EXACT
        plaid = self._spec.index == "plaid" or (many and has_pylate())
        self.facts = replace(self.facts, index="plaid" if plaid else "exact")
        best = Nearest.none(len(asked), depth)
        if plaid:
            best.indices[:] = self._ask_plaid(asked, of_documents, gathered.candidates, depth)
        of_pairs = np.empty(len(gathered.pairs), np.float32)
        for first, shard in self._each(of_documents):
            here = np.flatnonzero(gathered.pairs[:, 1] // TokenEncoder.SHARD == first // TokenEncoder.SHARD)
            of_pairs[here] = score_pairs(asked, shard, gathered.pairs[here] - [0, first])
            if plaid:
                rows, places = np.nonzero((best.indices >= first) & (best.indices < first + len(shard)))
                found = np.stack([rows, best.indices[rows, places] - first], axis=1)
                best.scores[rows, places] = score_pairs(asked, shard, found)
            elif first < gathered.candidates:
                self._score_every(asked, shard.span(slice(0, gathered.candidates - first)), first, best)
        nearest = merge([best], depth)
        return Found(nearest.indices, nearest.scores, of_pairs)

    def _each(self, paths: list[Path]) -> Iterator[tuple[int, Ragged]]:
        for number, path in enumerate(paths):
            self._context.check_stop()
            yield number * TokenEncoder.SHARD, read_tokens(path)
            self._context.progress(number + 1, len(paths))

    def _score_every(self, asked: Ragged, shard: Ragged, first: int, best: Nearest) -> None:
        for start in range(0, len(asked), _QUERIES):
            self._context.check_stop()
            block = slice(start, min(start + _QUERIES, len(asked)))
            scores = score_all(
                asked.span(block),
                shard,
                device=self._device,
                scores_at_once=self._spec.scores_at_once,
            )
            update_top_k(best, block, scores, first)

    def _ask_plaid(self, asked: Ragged, paths: list[Path], candidates: int, depth: int) -> np.ndarray:
        """[queries, depth] documents, -1 where there are no more."""
        index = PlaidIndex(self._context.folder / "work" / "plaid", self._device, self._spec.seed)
        for start in range(0, len(paths), INDEXED_AT_ONCE):
            self._context.check_stop()
            shards = [read_tokens(path) for path in paths[start : start + INDEXED_AT_ONCE]]
            first = start * TokenEncoder.SHARD
            index.add(Ragged.joined(shards).span(slice(0, max(0, candidates - first))), first)
        self._context.check_stop()
        return index.ask(asked, depth)
