"""A training batch between its rows and its loss: what data loaders carry and devices receive."""

from dataclasses import dataclass, replace
from typing import Generic, Self, TypeVar

import torch

from core.engine.losses import Layout
from core.engine.micro_batches import MicroBatch, move_micro_batch, split_into, split_micro_batches

Outputs = TypeVar("Outputs")
"""What a family must know to find its way in the model's output: see `Batch.outputs`."""


@dataclass(frozen=True)
class MicroBatches:
    """Texts as a model reads them, in groups, and where each one's vectors come out."""

    parts: list[MicroBatch]
    """Of this process's share; each tensor is [texts, tokens]."""
    positions: torch.Tensor
    """[vectors of all texts]: where each stands in the concatenated output, of all processes if there are
    several. Texts that are equal stand there once."""
    height: int
    """Rows that every process hands in, where there are several."""

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        parts = [move_micro_batch(part, device, non_blocking=non_blocking) for part in self.parts]
        return replace(self, parts=parts, positions=self.positions.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        parts = [{name: tensor.pin_memory() for name, tensor in part.items()} for part in self.parts]
        return replace(self, parts=parts, positions=self.positions.pin_memory())

    def split(self, budget: int) -> Self:
        """The same texts in micro-batches of at most ``budget`` tokens, or one text."""
        return replace(self, parts=split_micro_batches(self.parts, budget))

    def split_into(self, count: int) -> Self:
        """The same texts in at least ``count`` micro-batches."""
        return replace(self, parts=split_into(self.parts, count))


@dataclass(frozen=True)
class Batch(Generic[Outputs]):
    """The texts of some rows: first the queries, then their documents.

    The documents are the positives in the order of the queries, then all negatives. ``to`` and ``pin_memory``
    are what data loaders and accelerate call.
    """

    texts: MicroBatches
    queries: int
    owners: torch.Tensor
    """[documents]: the query of each."""
    tokens: int
    """Real ones, without padding, of all processes."""
    outputs: Outputs
    """The family's own: None where every text gives one vector. It stays on the CPU."""
    teacher: torch.Tensor | None = None
    """[documents]: a teacher's scores, where every row has them."""
    guide: MicroBatches | None = None
    """The same texts for the guide, where there is one."""

    @property
    def layout(self) -> Layout:
        """What the loss must know of it."""
        return Layout(self.queries, self.owners, self.teacher)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        return replace(
            self,
            texts=self.texts.to(device, non_blocking),
            owners=self.owners.to(device, non_blocking=non_blocking),
            teacher=None if self.teacher is None else self.teacher.to(device, non_blocking=non_blocking),
            guide=None if self.guide is None else self.guide.to(device, non_blocking),
        )

    def pin_memory(self) -> Self:
        return replace(
            self,
            texts=self.texts.pin_memory(),
            owners=self.owners.pin_memory(),
            teacher=None if self.teacher is None else self.teacher.pin_memory(),
            guide=None if self.guide is None else self.guide.pin_memory(),
        )

    def split(self, budget: int) -> Self:
        """The same batch in micro-batches of at most ``budget`` tokens, or one text."""
        guide = None if self.guide is None else self.guide.split(budget)
        return replace(self, texts=self.texts.split(budget), guide=guide)
