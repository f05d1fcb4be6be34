"""Micro-batches through a model that is not being trained."""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from core.run.heap import HELD_BYTES, give_back_freed_memory
from core.training.recovery import MicroBatch, in_halves

T = TypeVar("T")


def pieces_of(
    model: Any,
    micro_batches: Iterable[MicroBatch],
    compute: Callable[[MicroBatch], T],
    what: str,
    check_stop: Callable[[], None],
) -> list[T]:
    """What ``compute`` makes of each, on the model's device and without dropout, in their order.

    It asks ``check_stop`` between them: a large corpus must not outlast a stop request. Raises `OutOfMemory`
    when not even one text fits: ``what`` cannot be done.
    """
    found: list[T] = []
    was_training = model.training
    model.eval()
    try:
        for micro_batch in micro_batches:
            check_stop()
            on_device = {name: tensor.to(model.device) for name, tensor in micro_batch.items()}
            found += in_halves(compute, on_device, what)
            if model.device.type == "cpu":
                give_back_freed_memory(above=HELD_BYTES)
    finally:
        model.train(was_training)
    return found
