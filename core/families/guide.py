"""A bi-encoder beside the one that is trained, which says what of a batch is no negative."""

from collections.abc import Callable
from typing import Any

import torch

from core.engine.batch import Batch
from core.engine.encoding import encode_micro_batches
from core.engine.losses import FalseNegatives, find_false_negatives
from core.spec.parts.training import Guide


class AskGuide:
    """Batches with a ``guide`` -> false negatives. No module: the guide's weights are nobody's to train."""

    def __init__(
        self, model: Any, asked: Guide, gather: Callable[[torch.Tensor], torch.Tensor] | None
    ) -> None:
        self._model, self._asked, self._gather = model, asked, gather
        self._found: FalseNegatives | None = None

    def __call__(self, batch: Batch[Any]) -> FalseNegatives:
        assert batch.guide is not None
        with torch.no_grad():
            embeddings = encode_micro_batches(self._model, batch.guide, gather=self._gather)
            embeddings = torch.nn.functional.normalize(embeddings, dim=-1)
            queries = batch.queries
            found = find_false_negatives(embeddings[:queries] @ embeddings[queries:].T, self._asked)
        self._found = found
        return found

    @property
    def masked_share(self) -> float:
        """Of the last batch's negatives. Computed when asked: in every step it would wait for the GPU."""
        return self._found.share if self._found is not None else 0.0
