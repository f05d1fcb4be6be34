"""What training asks of a family. Each is a package with these names in it: know one and you know all."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import nn

from core.data.retrieval_sets.judgments import RetrievalSet
from core.engine.batching import Packing
from core.engine.encoding import Forward
from core.engine.tokens import Frame, Ids, Input
from core.ranking.metrics import Run
from core.ranking.triplets import Score
from core.runtime.context import RunContext
from core.spec.parts.evaluation import Rerank
from core.spec.parts.models import Prompts, PruneEmbeddings
from core.spec.parts.training import Lengths
from core.spec.train import TrainSpec

Gather = Callable[[torch.Tensor], torch.Tensor]
"""Adds what other processes have of a batch."""

Rank = Callable[[RetrievalSet, int], Run]
"""(dataset, depth) -> every query's best documents with scores, without those that it must leave out."""


@dataclass(frozen=True)
class Use:
    """How a model ranks and scores, while it is trained and afterwards. ``metrics`` are those asked for."""

    prompts: Prompts = field(default_factory=Prompts)
    prune_embeddings: PruneEmbeddings | None = None
    index: Literal["auto", "exact", "plaid"] = "auto"
    rerank: Rerank = field(default_factory=Rerank)
    metrics: tuple[str, ...] = ()
    seed: int = 42

    @classmethod
    def of(cls, spec: TrainSpec) -> "Use":
        asked = spec.evaluation
        return cls(
            spec.prompts, spec.prune_embeddings, asked.index, asked.rerank, tuple(asked.metrics), spec.seed
        )


@dataclass(frozen=True)
class VectorsPerDocument:
    """On average, and what there would be of them unpruned."""

    mean: float
    unpruned: float


class Reader(Protocol):
    """Token ids into what the model reads: with special tokens, cut to length."""

    frame: Frame  # of its padding
    specials: dict[str, int]  # tokens that stand around a "query" and around a "document"
    configured: dict[str, int]  # lengths that the model is set to: ``auto`` goes no further
    fixed: dict[str, int]  # of roles whose length is a part of the model: ``auto`` is this

    def read(
        self,
        queries: Sequence[Ids],
        documents: Sequence[Ids],
        owners: Sequence[int],
        lengths: dict[str, int],
    ) -> tuple[list[Input], Any]:
        """A batch's inputs, and its `Batch.outputs`. ``owners`` [documents]: the
        query of each; the first documents are the positives, in the order of the queries. ``lengths`` are
        the most tokens of a "query" and a "document"."""
        ...

    def count_vectors(self, documents: Sequence[Ids], lengths: dict[str, int]) -> VectorsPerDocument | None:
        """How many vectors these documents get; None where each gets one."""
        ...


class Family(Protocol):
    """The names that a family's package has."""

    def load_for_training(self, context: RunContext, spec: TrainSpec, device: str) -> nn.Module:
        """The spec's base model with trainable float32 weights. Raises `BadModel`."""
        ...

    def make_reader(self, model: Any, spec: TrainSpec) -> Reader: ...

    def set_lengths(self, model: Any, lengths: dict[str, int], asked: Lengths) -> None:
        """After how many tokens the model cuts texts when it is evaluated and used: as ``asked.saved`` says;
        ``lengths`` are those of the training."""
        ...

    def saved_lengths(self, model: Any) -> dict[str, int]:
        """What they are, by role; of a cross-encoder, of a ``pair``."""
        ...

    def make_forward(self, spec: TrainSpec) -> Forward: ...

    def make_objective(self, model: Any, spec: TrainSpec, guide: Any, gather: Gather) -> nn.Module:
        """Of what comes out of the model, and the `Batch` that went in: a scalar."""
        ...

    def make_rank(self, model: Any, use: Use, packing: Packing, context: RunContext) -> Rank:
        """Of the model as it is when it is asked."""
        ...

    def make_score(self, model: Any, use: Use, packing: Packing, context: RunContext) -> Score:
        """Of single pairs, by the model as it is when it is asked."""
        ...

    def save_model(self, model: Any, folder: Path) -> None:
        """A folder that the family's library loads."""
        ...


def family_of(name: str) -> Family:
    """The imports are inside: a job pays for the libraries that it uses."""
    match name:
        case "dense":
            from core.families import dense

            return dense
        case "late_interaction":
            from core.families import late_interaction

            return late_interaction
    from core.families import cross_encoder

    return cross_encoder
