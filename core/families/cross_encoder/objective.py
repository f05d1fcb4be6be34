"""Scores of pairs into a loss."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from core.engine.encoding import Forward
from core.engine.losses import Layout, make_loss
from core.spec.train import TrainSpec


def make_forward(spec: TrainSpec) -> Forward:
    def forward(model: Any, micro_batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return model(**micro_batch).float()  # [pairs]

    return forward


class Objective(nn.Module):
    """A batch's scores and what the collator says of it -> a scalar."""

    masked_share = 0.0

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, scores: torch.Tensor, batch: dict[str, Any]) -> torch.Tensor:
        rows, columns = torch.as_tensor(batch["pairs"]).to(scores.device).T
        every = scores.new_full((batch["queries"], len(batch["owners"])), -torch.inf)
        every = every.index_put((rows, columns), scores)  # [queries, documents]
        return self.loss(every, Layout(batch["queries"], batch["owners"], batch.get("teacher")))


def make_objective(
    model: Any, spec: TrainSpec, guide: Any, gather: Callable[[torch.Tensor], torch.Tensor] | None
) -> Objective:
    return Objective(make_loss(spec.loss, logits=True))
