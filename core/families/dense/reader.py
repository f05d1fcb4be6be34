"""Token ids into what a bi-encoder reads."""

from collections.abc import Sequence
from typing import Any

from core.engine.models.loading import context_length
from core.engine.tokens import Frame, Ids, Input
from core.families.cutting import Cut, make_cut
from core.spec.parts.training import Lengths
from core.spec.train import TrainSpec


class Reader:
    """Queries, then documents, each text by itself."""

    def __init__(self, frame: Frame, configured: int, cut: Cut | None = None) -> None:
        self.frame = frame
        self._cut = cut or Cut()
        self.specials = {"query": frame.specials, "document": frame.specials}
        self.configured = {"query": configured, "document": configured}
        self.fixed: dict[str, int] = {}

    def read(
        self,
        queries: Sequence[Ids],
        documents: Sequence[Ids],
        owners: Sequence[int],
        lengths: dict[str, int],
    ) -> tuple[list[Input], None]:
        """[queries + documents] of one vector each."""
        inputs = [Input(self.frame.put(text, lengths["query"])) for text in queries]
        room = lengths["document"] - self.frame.specials
        inputs += [Input(self.frame.put(self._cut(text, room), lengths["document"])) for text in documents]
        return inputs, None

    def count_vectors(self, documents: Sequence[Ids], lengths: dict[str, int]) -> None:
        return None


def make_reader(model: Any, spec: TrainSpec) -> Reader:
    longest = context_length(model)
    configured = min(model.max_seq_length or longest, longest)
    return Reader(Frame.of(model.tokenizer), configured, make_cut(model.tokenizer, spec.lengths))


def set_lengths(model: Any, lengths: dict[str, int], asked: Lengths) -> None:
    own = (model.max_seq_length or 0) if asked.saved == "base" else 0
    model.max_seq_length = min(context_length(model), max(own, *lengths.values()))


def saved_lengths(model: Any) -> dict[str, int]:
    return {"query": model.max_seq_length, "document": model.max_seq_length}
