"""Micro-batches through a model that is not being trained."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch

from core.engine.micro_batches import MicroBatch, in_evaluation_mode, in_halves, move_micro_batch
from core.engine.sharding import Compute, compute_together, is_sharded
from core.errors import BadModel
from core.runtime.c_heap import HELD_BYTES, give_back_freed_memory

T = TypeVar("T")


class NotFinite(BadModel):
    """A model's vectors or scores are NaN or infinite: nothing can be ranked by them."""


def check_finite(model: Any, values: torch.Tensor | np.ndarray, what: str) -> None:
    """Raise `NotFinite` unless all numbers of ``values`` [rows] or [rows, dim] are finite.

    ``what`` names them in the message. `core.engine.models.loading.load` notes where a model is from.
    """
    finite = values.isfinite() if isinstance(values, torch.Tensor) else np.isfinite(values)
    if bool(finite.all()):
        return
    rows = finite.reshape(len(values), -1).all(-1)
    bad = len(values) - int(rows.sum())
    raise NotFinite(
        f"{getattr(model, 'loaded_from', 'the model')} gives {bad:,} of {len(values):,} {what} that are not "
        "finite numbers (NaN or infinity): its weights are broken, or its values overflow in half precision"
    )


def pieces_of(
    model: Any,
    micro_batches: Iterable[MicroBatch],
    compute: Compute[T],
    what: str,
    check_stop: Callable[[], None],
) -> list[T]:
    """What ``compute`` makes of each, on the model's device and without dropout, in their order.

    It asks ``check_stop`` between them: a large corpus must not outlast a stop request. Raises `OutOfMemory`
    when not even one text fits: ``what`` cannot be done.
    """
    if is_sharded(model):
        return compute_together(model, micro_batches, compute, check_stop)
    found: list[T] = []
    with in_evaluation_mode(model):
        for micro_batch in micro_batches:
            check_stop()
            on_device = move_micro_batch(micro_batch, model.device)
            with torch.inference_mode():
                found += in_halves(partial(compute, model), on_device, what)
            if model.device.type == "cpu":
                give_back_freed_memory(above=HELD_BYTES)
    return found
