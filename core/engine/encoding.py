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
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop
from transformers import PreTrainedTokenizerBase

from core.engine.batch import MicroBatches
from core.engine.batching import WHOLE, Packing, Share, plan_micro_batches
from core.engine.micro_batches import MicroBatch
from core.engine.models.loading import transformer_of
from core.engine.sharding import is_sharded, recomputing
from core.engine.tokens import Frame, Ids, Input
from core.runtime.c_heap import give_back_freed_memory


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
    frame: Frame, texts: Sequence[Input | Ids], packing: Packing, share: Share = WHOLE
) -> MicroBatches:
    """Pads groups of similar length, each to its longest text, with the ``frame``'s padding."""
    distinct: dict[bytes, int] = {}
    inputs: list[Input] = []
    of_text = np.empty(len(texts), np.int64)
    for index, text in enumerate(texts):
        found = text if isinstance(text, Input) else Input(np.asarray(text, np.int64))
        number = distinct.setdefault(found.key, len(inputs))
        if number == len(inputs):
            inputs.append(found)
        of_text[index] = number
    order = np.argsort([-len(found.ids) for found in inputs], kind="stable")
    numbers, places = share.deal(order)
    mine = [inputs[number] for number in numbers]
    padded = [
        _pad(frame, mine[group], packing.padded(len(mine[group.start].ids)))
        for group in plan_micro_batches([len(found.ids) for found in mine], packing)
    ]
    counts = np.array([found.vectors for found in inputs], np.int64)
    begins, height = _begins(counts, order, places, share)
    positions = _spans(begins[of_text], counts[of_text])
    return MicroBatches(padded, torch.from_numpy(positions), height)


def _begins(
    counts: np.ndarray, order: np.ndarray, places: np.ndarray, share: Share
) -> tuple[np.ndarray, int]:
    """(where the vectors of each text begin in the output of all processes, how many rows one has)."""
    each = -(-len(order) // share.size)  # texts of a process
    in_places = np.zeros(each * share.size, np.int64)
    in_places[places] = counts[order]
    if len(order):  # what fills up the last places is the last text again
        filled = np.setdiff1d(np.arange(len(in_places)), places, assume_unique=True)
        in_places[filled] = counts[order[-1]]
    of_process = in_places.reshape(share.size, each)
    height = int(of_process.sum(1).max(initial=0))
    before = of_process.cumsum(1) - of_process + height * np.arange(share.size)[:, None]
    begins = np.empty(len(order), np.int64)
    begins[order] = before.reshape(-1)[places]
    return begins, height


def _spans(begins: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The numbers from each begin on, as many as its count, one behind the other."""
    if (counts == 1).all():
        return begins
    within = np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts)
    return np.repeat(begins, counts) + within


def _pad(frame: Frame, texts: list[Input], width: int) -> MicroBatch:
    ids = np.full((len(texts), width), frame.pad, np.int64)
    rows = {name: np.zeros_like(ids) for name in ("attention_mask", *texts[0].beside)}
    for row, text in enumerate(texts):
        length = len(text.ids)
        span = slice(width - length, width) if frame.pads_left else slice(length)
        ids[row, span] = text.ids
        rows["attention_mask"][row, span] = 1
        for name, values in text.beside.items():
            rows[name][row, span] = values
    return {name: torch.from_numpy(array) for name, array in {"input_ids": ids, **rows}.items()}


Forward = Callable[[Any, MicroBatch], torch.Tensor]
"""(model, micro-batch) -> [vectors, ...]. The micro-batch is its own: models write into it."""


def sentence_embedding(model: Any, micro_batch: MicroBatch) -> torch.Tensor:
    """A bi-encoder's: [texts, dim]."""
    return model(micro_batch)["sentence_embedding"]


def encode_micro_batches(
    model: Any,
    texts: MicroBatches,
    *,
    forward: Forward = sentence_embedding,
    cached: bool = False,
    held: int | None = None,
    gather: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> torch.Tensor:
    """What the model makes of the texts, in their order: [vectors, ...]. ``gather`` adds what other processes
    made.

    ``cached``: the activations of all micro-batches but the last are dropped and computed again. The last
    one's are wanted first, so that keeping them costs neither memory nor time. On a CPU freed memory above
    ``held`` bytes is given back after each.
    """
    words = _WordVectors.of(model, texts.parts)
    pieces = []
    for micro_batch in texts.parts:
        if cached and micro_batch is not texts.parts[-1]:
            piece = _checkpoint(forward, model, micro_batch, words)
        else:
            piece = _forward(forward, model, micro_batch, words)
        if held is not None and piece.requires_grad and not piece.is_cuda:
            give_back_freed_memory(above=held)
            piece.register_hook(lambda _: give_back_freed_memory(above=held))  # and in the backward pass
        pieces.append(piece)
    vectors = torch.cat(pieces)
    if gather is not None:
        if missing := texts.height - len(vectors):
            vectors = torch.cat([vectors, vectors.new_zeros(missing, *vectors.shape[1:])])
        vectors = gather(vectors)
    return vectors[texts.positions]


def _checkpoint(
    forward: Forward, model: Any, micro_batch: MicroBatch, words: "_WordVectors | None"
) -> torch.Tensor:
    arguments = (_forward, forward, model, micro_batch, words)
    if not is_sharded(model):
        return checkpoint(*arguments, use_reentrant=False)
    # A forward pass that breaks off would leave layers gathered.
    with set_checkpoint_early_stop(enable=False):
        return checkpoint(
            *arguments,
            use_reentrant=False,
            context_fn=lambda: (contextlib.nullcontext(), recomputing(model)),
        )


def _forward(
    forward: Forward, model: Any, micro_batch: MicroBatch, words: "_WordVectors | None"
) -> torch.Tensor:
    with words.in_place() if words else contextlib.nullcontext():
        return forward(model, dict(micro_batch))


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
    def of(cls, model: Any, micro_batches: list[MicroBatch]) -> "_WordVectors | None":
        """None where it would change nothing, or could."""
        if hasattr(model, "_orig_mod"):  # compiled: its code has the table's own lookup in it
            return None
        if is_sharded(model):  # there is no table but while the model runs
            return None
        table = transformer_of(model).get_input_embeddings()
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
        self.table.forward = lambda ids: functional.embedding(self.row_of[ids], self.rows)
        try:
            yield
        finally:
            del self.table.forward
