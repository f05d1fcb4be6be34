"""Embeddings into a loss: similarities, Matryoshka's cuts, a guide's mask."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from core.spec.train import Guide, Matryoshka
from core.training.encoding import encode_micro_batches
from core.training.losses import FalseNegatives, Layout, find_false_negatives


def similarities(embeddings: torch.Tensor, queries: int, *, cosine: bool) -> torch.Tensor:
    """embeddings [queries + documents, dim] -> [queries, documents]."""
    if cosine:
        embeddings = functional.normalize(embeddings, dim=-1)
    return embeddings[:queries] @ embeddings[queries:].T


class Objective(nn.Module):
    """A batch's embeddings and what the collator says of it -> a scalar."""

    def __init__(
        self,
        loss: nn.Module,
        *,
        cosine: bool = True,
        matryoshka: Matryoshka | None = None,
        guide: tuple[Any, Guide] | None = None,
        gather: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.loss, self.cosine = loss, cosine
        dimensions: Sequence[int] = matryoshka.dimensions if matryoshka else ()
        weights = (matryoshka.weights if matryoshka else None) or [1.0] * len(dimensions)
        # None: all of them.
        self._cuts: list[tuple[int | None, float]] = [(None, 1.0), *zip(dimensions, weights, strict=True)]
        self._guide = guide  # in a tuple, so that its weights are not this module's
        self._gather = gather  # the guide's embeddings from other processes
        self._masked: FalseNegatives | None = None

    def forward(self, embeddings: torch.Tensor, batch: dict[str, Any]) -> torch.Tensor:
        layout = Layout(batch["queries"], batch["owners"], batch.get("teacher"))
        options = {}
        if self._guide is not None:
            options["false_negatives"] = self._ask_guide(batch)
        return torch.stack(
            [
                weight
                * self.loss(
                    similarities(embeddings[:, :dimension], layout.queries, cosine=self.cosine),
                    layout,
                    **options,
                )
                for dimension, weight in self._cuts
            ]
        ).sum()

    def _ask_guide(self, batch: dict[str, Any]) -> FalseNegatives:
        assert self._guide is not None
        model, asked = self._guide
        with torch.no_grad():
            embeddings = encode_micro_batches(
                model, batch["guide"]["micro_batches"], batch["guide"]["positions"], gather=self._gather
            )
            found = find_false_negatives(similarities(embeddings, batch["queries"], cosine=True), asked)
        self._masked = found
        return found

    @property
    def masked_share(self) -> float:
        """Of the last batch's negatives. Computed when asked: in every step it would wait for the GPU."""
        return self._masked.share if self._masked is not None else 0.0
