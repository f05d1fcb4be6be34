"""Scores of pairs into a loss."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from core.engine.batch import Batch
from core.engine.encoding import Forward
from core.engine.losses import make_loss
from core.engine.micro_batches import MicroBatch
from core.spec.train import TrainSpec


def make_forward(spec: TrainSpec) -> Forward:
    def forward(model: Any, micro_batch: MicroBatch) -> torch.Tensor:
        return model(**micro_batch).float()  # [pairs]

    return forward


class Objective(nn.Module):
    """A batch's scores and what the collator says of it -> a scalar."""

    masked_share = 0.0

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, scores: torch.Tensor, batch: Batch[np.ndarray]) -> torch.Tensor:
        rows, columns = torch.as_tensor(batch.outputs).to(scores.device).T
        every = scores.new_full((batch.queries, len(batch.owners)), -torch.inf)
        every = every.index_put((rows, columns), scores)  # [queries, documents]
        return self.loss(every, batch.layout)


def make_objective(
    model: Any, spec: TrainSpec, guide: Any, gather: Callable[[torch.Tensor], torch.Tensor] | None
) -> Objective:
    return Objective(make_loss(spec.loss, logits=True))
