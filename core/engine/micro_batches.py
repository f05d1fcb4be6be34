"""Micro-batches: a part of a batch's texts, padded, that goes through a model at once."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import torch

from core.errors import OutOfMemory
from core.runtime.devices import release_memory

T = TypeVar("T")

MicroBatch = dict[str, torch.Tensor]
"""By name of the model's argument, each [texts, tokens]."""

_MEMORY_WORDS = ("out of memory", "can't allocate memory", "STATUS_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Torch says it in several ways, by device and by library."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _MEMORY_WORDS)


def tokens_of(micro_batch: MicroBatch) -> int:
    """With their padding."""
    return micro_batch["input_ids"].numel()


def move_micro_batch(
    micro_batch: MicroBatch, device: torch.device | str, *, non_blocking: bool = False
) -> MicroBatch:
    return {name: tensor.to(device, non_blocking=non_blocking) for name, tensor in micro_batch.items()}


def split_micro_batches(micro_batches: Iterable[MicroBatch], budget: int) -> list[MicroBatch]:
    """Cuts micro-batches above ``budget`` tokens into runs of texts; a single text is never cut.

    The order of the texts stays, and so does everything that comes after them.
    """
    found = []
    for micro_batch in micro_batches:
        texts, width = micro_batch["input_ids"].shape
        count = max(1, budget // max(width, 1))
        found += [
            {name: tensor[start : start + count] for name, tensor in micro_batch.items()}
            for start in range(0, texts, count)
        ]
    return found


def split_into(micro_batches: Sequence[MicroBatch], count: int) -> list[MicroBatch]:
    """As many micro-batches as ``count``: the largest are cut in halves. The order of the texts stays.

    There must be so many texts.
    """
    found = list(micro_batches)
    while len(found) < count:
        sizes = [tokens_of(one) if len(one["input_ids"]) > 1 else 0 for one in found]
        place = sizes.index(max(sizes))
        half = -(-len(found[place]["input_ids"]) // 2)
        found[place : place + 1] = [
            {name: tensor[rows] for name, tensor in found[place].items()}
            for rows in (slice(half), slice(half, None))
        ]
    return found


@contextlib.contextmanager
def in_evaluation_mode(model: Any) -> Iterator[None]:
    """Without dropout; afterwards the model is in the mode that it was in."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def in_halves(compute: Callable[[MicroBatch], T], micro_batch: MicroBatch, what: str) -> list[T]:
    """``compute`` of the micro-batch, or, where memory does not suffice, of its halves in order.

    Raises `OutOfMemory` when not even one text fits: ``what`` cannot be done.
    """
    try:
        return [compute(micro_batch)]
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        if len(micro_batch["input_ids"]) == 1:
            raise OutOfMemory(
                f"There is too little memory to {what} of {tokens_of(micro_batch)} tokens: use shorter "
                "lengths."
            ) from error
    # Outside of the except block: the exception holds what was computed.
    release_memory()
    halves = split_micro_batches([micro_batch], -(-tokens_of(micro_batch) // 2))
    return [found for half in halves for found in in_halves(compute, half, what)]
