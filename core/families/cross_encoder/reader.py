"""Token ids into what a cross-encoder reads: a query and a document in one input."""

from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

from core.engine.models.loading import context_length
from core.engine.tokens import Frame, Ids, Input
from core.errors import BadModel
from core.families.cross_encoder.pair_model import PairModel
from core.families.cutting import Cut, make_cut
from core.spec.parts.training import Lengths, Loss
from core.spec.train import TrainSpec

_IN_BATCH = 4
"""``in_batch_negatives: auto``, where there are to be any."""


class Reader:
    """Pairs: each query with its own documents, and with the positives of the queries after it in the batch,
    round about, where the loss wants in-batch negatives (batches are shuffled: that is a random choice).

    A batch's ``outputs`` are these pairs, [pairs, 2]: numbers of queries and documents, in the order of the
    inputs, each of which gives one score.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, loss: Loss, context: int, cut: Cut | None = None
    ) -> None:
        self._cut = cut or Cut()
        self.frame = Frame.of(tokenizer)
        self._before, self._between, self._after, self._types = _pair_frame(tokenizer)
        self.specials = {
            "query": len(self._before) + len(self._between),
            "document": len(self._after),
        }
        self._context = context
        longest = max(8, context - sum(self.specials.values()))
        self.configured = {"query": longest, "document": longest}
        self.fixed: dict[str, int] = {}
        self._loss = loss

    def read(
        self,
        queries: Sequence[Ids],
        documents: Sequence[Ids],
        owners: Sequence[int],
        lengths: dict[str, int],
    ) -> tuple[list[Input], np.ndarray]:
        pairs = self._pairs(len(queries), np.asarray(owners, np.int64))
        inputs = [
            self.pair(queries[query], documents[document], lengths) for query, document in pairs.tolist()
        ]
        return inputs, pairs

    def _pairs(self, queries: int, owners: np.ndarray) -> np.ndarray:
        own = np.stack([owners, np.arange(len(owners))], axis=1)
        if self._loss.needs_scores:
            return own
        asked = self._loss.in_batch_negatives
        wanted = np.full(queries, _IN_BATCH if asked == "auto" else asked)
        if asked == "auto" and self._loss.name != "mnrl":
            wanted[np.bincount(owners, minlength=queries) > 1] = 0
        others = [
            (query, (query + step) % queries)
            for query, count in enumerate(np.minimum(wanted, queries - 1).tolist())
            for step in range(1, count + 1)
        ]
        return np.concatenate([own, np.array(others, np.int64).reshape(-1, 2)])

    def pair(self, query: Ids, document: Ids, lengths: dict[str, int]) -> Input:
        """Each cut to its length; the document also to what the query leaves of the model's context."""
        query = query[: lengths["query"] - self.specials["query"]]
        room = self._context - sum(self.specials.values()) - len(query)
        room = max(0, min(lengths["document"] - self.specials["document"], room))
        document = self._cut(document, room)[:room]
        first = np.concatenate([self._before, query, self._between])
        ids = np.concatenate([first, document, self._after]).astype(np.int64)
        if self._types is None:
            return Input(ids)
        types = np.full(len(ids), self._types[1], np.int64)
        types[: len(first)] = self._types[0]
        return Input(ids, {"token_type_ids": types})

    def count_vectors(self, documents: Sequence[Ids], lengths: dict[str, int]) -> None:
        return None


def make_reader(model: PairModel, spec: TrainSpec) -> Reader:
    cut = make_cut(model.tokenizer, spec.lengths)
    return Reader(model.tokenizer, spec.loss, context_length(model), cut)


def set_lengths(model: PairModel, lengths: dict[str, int], asked: Lengths) -> None:
    own = model.tokenizer.model_max_length if asked.saved == "base" else 0
    model.tokenizer.model_max_length = min(context_length(model), max(own, sum(lengths.values())))


def saved_lengths(model: PairModel) -> dict[str, int]:
    return {"pair": model.tokenizer.model_max_length}


def _pair_frame(
    tokenizer: PreTrainedTokenizerBase,
) -> tuple[list[int], list[int], list[int], tuple[int, int] | None]:
    """(before the query, between, after the document, token types of both or None). Raises `BadModel`."""
    one, other = (
        tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("a word", "an other thing")
    )
    both = tokenizer("a word", "an other thing")
    ids = both["input_ids"]
    for start in range(len(ids) - len(one) + 1):
        if ids[start : start + len(one)] != one:
            continue
        for second in range(start + len(one), len(ids) - len(other) + 1):
            if ids[second : second + len(other)] == other:
                types = both.get("token_type_ids")
                kinds = (types[start], types[second]) if types else None
                between = ids[start + len(one) : second]
                return ids[:start], between, ids[second + len(other) :], kinds
    raise BadModel(f"{type(tokenizer).__name__} changes a pair's tokens when it puts them together")
