"""A batch's texts through the model: distinct texts once, sorted by length, in micro-batches.

Loss, gradients and the composition of the batch stay what encoding column by column would give; only the
padding goes away. With ``cached`` each micro-batch's activations are dropped and computed again in the
backward pass, under the same random state (gradient caching, Gao et al. 2021, arXiv 2101.06983; here
by non-reentrant checkpointing of whole micro-batches), so that the batch size is not bounded by memory.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedTokenizerBase

from core.training.batching import plan_micro_batches

Tokens = dict[str, list[int]]
"""One tokenized text: ``input_ids``, ``attention_mask`` and what else the model wants, each [tokens]."""


def tokenize(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int) -> list[Tokens]:
    """Token ids of every text, cut after ``max_length``, not padded."""
    if not texts:
        return []
    encoded = tokenizer(list(texts), truncation=True, max_length=max_length, padding=False, verbose=False)
    return [{name: column[index] for name, column in encoded.items()} for index in range(len(texts))]


def make_micro_batches(
    tokenizer: PreTrainedTokenizerBase, tokens: list[Tokens], token_budget: int, multiple: int = 8
) -> tuple[list[dict[str, torch.Tensor]], torch.Tensor]:
    """Pads groups of similar length, each to its longest text rounded up to ``multiple``.

    Returns the groups, each a dict of [texts, tokens] tensors, and ``positions`` [texts]: where each text
    stands in the concatenated output. Equal token sequences stand there once.
    """
    distinct: dict[tuple[int, ...], int] = {}
    of_text = [distinct.setdefault(tuple(text["input_ids"]), len(distinct)) for text in tokens]
    representative = [0] * len(distinct)
    for index, unique in enumerate(of_text):
        representative[unique] = index
    groups = plan_micro_batches([len(ids) for ids in distinct], token_budget, multiple)
    padded = [
        dict(
            tokenizer.pad(
                [tokens[representative[unique]] for unique in group],
                padding=True,
                pad_to_multiple_of=multiple,
                return_tensors="pt",
                verbose=False,
            )
        )
        for group in groups
    ]
    place = [0] * len(distinct)
    for position, unique in enumerate(unique for group in groups for unique in group):
        place[unique] = position
    return padded, torch.tensor([place[unique] for unique in of_text], dtype=torch.long)


def encode_micro_batches(
    model: Any, micro_batches: list[dict[str, torch.Tensor]], positions: torch.Tensor, *, cached: bool = False
) -> torch.Tensor:
    """Embeddings [texts, dim] in the order of the texts.

    ``cached``: the activations of all micro-batches but the last are dropped and computed again. The last
    one's are wanted first, so that keeping them costs neither memory nor time.
    """
    words = _WordVectors.of(model, micro_batches)
    pieces = [
        checkpoint(_embed, model, micro_batch, words, use_reentrant=False)
        if cached and micro_batch is not micro_batches[-1]
        else _embed(model, micro_batch, words)
        for micro_batch in micro_batches
    ]
    return torch.cat(pieces)[positions]


def _embed(model: Any, micro_batch: dict[str, torch.Tensor], words: "_WordVectors | None") -> torch.Tensor:
    with words.in_place() if words else contextlib.nullcontext():
        return model(dict(micro_batch))[
            "sentence_embedding"
        ]  # [texts, dim]; a copy, because modules write into it


@dataclass
class _WordVectors:
    """The vectors of a batch's distinct tokens, taken out of the table once.

    Else the backward pass of every micro-batch fills a gradient of the whole table, [vocabulary, dim], for
    the few thousand rows that it touches. Values and gradients are the same.
    """

    table: nn.Embedding
    rows: torch.Tensor  # [distinct, dim]
    row_of: torch.Tensor  # [vocabulary], of the distinct tokens

    @classmethod
    def of(cls, model: Any, micro_batches: list[dict[str, torch.Tensor]]) -> "_WordVectors | None":
        """None where it would change nothing, or could."""
        table = model[0].auto_model.get_input_embeddings() if isinstance(model, nn.Sequential) else None
        if (
            len(micro_batches) < 2
            or not torch.is_grad_enabled()
            or type(table) is not nn.Embedding  # what derives from it may compute something else
            or not table.weight.requires_grad
            or table.max_norm is not None
            or table.scale_grad_by_freq
            or table.sparse
        ):
            return None
        distinct = torch.cat([micro_batch["input_ids"].flatten() for micro_batch in micro_batches]).unique()
        row_of = torch.zeros(table.num_embeddings, dtype=torch.long, device=distinct.device)
        row_of[distinct] = torch.arange(len(distinct), device=distinct.device)
        if table.padding_idx is not None:  # its vector learns nothing
            learning = (distinct != table.padding_idx).unsqueeze(1)
            rows = table.weight[distinct]
            return cls(table, torch.where(learning, rows, rows.detach()), row_of)
        return cls(table, table.weight[distinct], row_of)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """The model looks its tokens up here."""
        self.table.forward = lambda ids: functional.embedding(self.row_of[ids], self.rows)  # type: ignore[method-assign]
        try:
            yield
        finally:
            del self.table.forward
