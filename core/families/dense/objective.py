"""Embeddings into a loss: similarities, Matryoshka's cuts, a guide's mask."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from core.engine.batch import Batch
from core.engine.encoding import Forward, sentence_embedding
from core.engine.losses import make_loss
from core.families.guide import AskGuide
from core.spec.parts.training import Guide, Matryoshka
from core.spec.train import TrainSpec


def make_forward(spec: TrainSpec) -> Forward:
    return sentence_embedding


def make_objective(
    model: Any, spec: TrainSpec, guide: Any, gather: Callable[[torch.Tensor], torch.Tensor] | None
) -> "Objective":
    return Objective(
        make_loss(spec.loss),
        cosine=model.similarity_fn_name != "dot",
        matryoshka=spec.matryoshka,
        guide=(guide, spec.loss.guide) if guide is not None and spec.loss.guide else None,
        gather=gather,
    )


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
        self._guide = AskGuide(*guide, gather) if guide is not None else None

    def forward(self, embeddings: torch.Tensor, batch: Batch[None]) -> torch.Tensor:
        layout = batch.layout
        options = {} if self._guide is None else {"false_negatives": self._guide(batch)}
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

    @property
    def masked_share(self) -> float:
        """Of the last batch's negatives."""
        return self._guide.masked_share if self._guide is not None else 0.0
