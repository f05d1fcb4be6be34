"""A batch's texts through the model: distinct texts once, sorted by length, in micro-batches.

Loss, gradients and the composition of the batch stay what encoding column by column would give; only the
padding goes away. With ``cached`` each micro-batch's activations are dropped and computed again in the
backward pass, under the same random state (gradient caching, Gao et al. 2021, arXiv 2101.06983; here
by non-reentrant checkpointing of whole micro-batches), so that the batch size is not bounded by memory.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedTokenizerBase

from core.run.heap import give_back_freed_memory
from core.training.batching import WHOLE, Packing, Share, plan_micro_batches
from core.training.tokens import Frame, Ids


def tokenize(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int
) -> list[Sequence[int]]:
    """Token ids of every text, special ones included, cut after ``max_length``, not padded."""
    if not texts:
        return []
    return tokenizer(list(texts), truncation=True, max_length=max_length, padding=False, verbose=False)[
        "input_ids"
    ]


def make_micro_batches(
    frame: Frame, texts: Sequence[Ids], packing: Packing, share: Share = WHOLE
) -> tuple[list[dict[str, torch.Tensor]], torch.Tensor]:
    """Pads groups of similar length, each to its longest text.

    ``texts`` are token ids within their special tokens. Returns the groups of this process's share, each
    ``input_ids`` and ``attention_mask`` [texts, tokens], and ``positions`` [texts]: where each text stands in
    the concatenated output, of all processes if there are several. Equal token sequences stand there once.
    """
    distinct: dict[bytes, int] = {}
    arrays: list[np.ndarray] = []
    of_text = []
    for text in texts:
        array = np.asarray(text, np.int64)
        number = distinct.setdefault(array.tobytes(), len(arrays))
        if number == len(arrays):
            arrays.append(array)
        of_text.append(number)
    order = np.argsort([-len(array) for array in arrays], kind="stable")
    numbers, places = share.deal(order)
    mine = [arrays[number] for number in numbers]
    padded = [
        _pad(frame, mine[group], packing.padded(len(mine[group.start])))
        for group in plan_micro_batches([len(array) for array in mine], packing)
    ]
    place = np.empty(len(arrays), np.int64)
    place[order] = places
    return padded, torch.from_numpy(place[of_text])


def _pad(frame: Frame, texts: list[np.ndarray], width: int) -> dict[str, torch.Tensor]:
    ids = np.full((len(texts), width), frame.pad, np.int64)
    mask = np.zeros_like(ids)
    for row, text in enumerate(texts):
        span = slice(width - len(text), width) if frame.pads_left else slice(len(text))
        ids[row, span], mask[row, span] = text, 1
    return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}


def encode_micro_batches(
    model: Any,
    micro_batches: list[dict[str, torch.Tensor]],
    positions: torch.Tensor,
    *,
    cached: bool = False,
    held: int | None = None,
    gather: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> torch.Tensor:
    """Embeddings [texts, dim] in the order of the texts. ``gather`` adds those of other processes.

    ``cached``: the activations of all micro-batches but the last are dropped and computed again. The last
    one's are wanted first, so that keeping them costs neither memory nor time. On a CPU freed memory above
    ``held`` bytes is given back after each.
    """
    words = _WordVectors.of(model, micro_batches)
    pieces = []
    for micro_batch in micro_batches:
        if cached and micro_batch is not micro_batches[-1]:
            piece = checkpoint(_embed, model, micro_batch, words, use_reentrant=False)
        else:
            piece = _embed(model, micro_batch, words)
        if held is not None and piece.requires_grad and not piece.is_cuda:
            give_back_freed_memory(above=held)
            piece.register_hook(lambda _: give_back_freed_memory(above=held))  # and in the backward pass
        pieces.append(piece)
    embeddings = torch.cat(pieces)
    return (gather(embeddings) if gather else embeddings)[positions]


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
