"""Tokens' vectors into a loss: MaxSim of every query with every document."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from core.engine.batch import Batch
from core.engine.encoding import Forward
from core.engine.losses import make_loss
from core.engine.micro_batches import MicroBatch
from core.families.guide import AskGuide
from core.families.late_interaction.maxsim import maxsim
from core.families.late_interaction.pooling import prune
from core.families.late_interaction.reader import KEPT, VectorCounts
from core.spec.parts.models import PruneEmbeddings
from core.spec.train import TrainSpec


def make_forward(spec: TrainSpec) -> Forward:
    return token_vectors(spec.prune_embeddings)


def token_vectors(asked: PruneEmbeddings | None) -> Forward:
    """Micro-batches into the vectors of all texts, one behind the other: [vectors, dim], normalised before
    documents' are pooled."""

    def forward(model: Any, micro_batch: MicroBatch) -> torch.Tensor:
        kept = micro_batch.pop(KEPT)  # [texts, tokens]
        vectors = model(micro_batch)["token_embeddings"][kept > 0].float()
        vectors = nn.functional.normalize(vectors, dim=-1)
        if asked is None:
            return vectors
        counts = (kept > 0).sum(1).tolist()
        of_document = (kept == 2).any(1).tolist()
        return torch.cat(
            [
                prune(of_text, asked) if prunable else of_text
                for of_text, prunable in zip(vectors.split(counts), of_document, strict=True)
            ]
        )

    return forward


class Objective(nn.Module):
    """A batch's vectors and what the collator says of it -> a scalar.

    ``legacy_sum_gradient`` multiplies the gradient, not the loss, by the number of queries: so does PyLate's
    cached loss, up to 1.6 at least, whose recipes have learning rates to match.
    """

    def __init__(
        self, loss: nn.Module, guide: AskGuide | None = None, *, legacy_sum_gradient: bool = False
    ) -> None:
        super().__init__()
        self.loss = loss
        self._guide, self._legacy = guide, legacy_sum_gradient

    def forward(self, vectors: torch.Tensor, batch: Batch[VectorCounts]) -> torch.Tensor:
        queries, counts = batch.queries, torch.as_tensor(batch.outputs.of_texts)
        of_queries = int(counts[:queries].sum())
        scores = maxsim(
            vectors[:of_queries],
            counts[:queries],
            vectors[of_queries:],
            counts[queries:],
            floored=torch.as_tensor(batch.outputs.floored),
        )  # [queries, documents]
        options = {} if self._guide is None else {"false_negatives": self._guide(batch)}
        loss = self.loss(scores, batch.layout, **options)
        return loss + (queries - 1) * (loss - loss.detach()) if self._legacy else loss

    @property
    def masked_share(self) -> float:
        """Of the last batch's negatives."""
        return self._guide.masked_share if self._guide is not None else 0.0


def make_objective(
    model: Any, spec: TrainSpec, guide: Any, gather: Callable[[torch.Tensor], torch.Tensor] | None
) -> Objective:
    asked = AskGuide(guide, spec.loss.guide, gather) if guide is not None and spec.loss.guide else None
    return Objective(make_loss(spec.loss), asked, legacy_sum_gradient=spec.loss.legacy_sum_gradient)
