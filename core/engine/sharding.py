"""A model in shards: every rank holds a part of each weight, of its gradient and of the optimizer's state.

PyTorch's FSDP2 (`torch.distributed.fsdp.fully_shard`; Zhao et al. 2023, arXiv 2304.11277). The weights of a
layer are gathered from all ranks right before the layer runs and are freed after it; its gradients are summed
over the ranks, and each rank keeps its part. So all ranks must run the same number of forward and backward
passes in the same order. `core.engine.ranks` gives them the same batches, this module the rest: as many
micro-batches on each rank, inference in lockstep, and whole tensors in checkpoints, which therefore do not
depend on the number of ranks.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from core.engine.micro_batches import MicroBatch, in_evaluation_mode, move_micro_batch
from core.engine.ranks import Ranks

T = TypeVar("T")


def shard_model(
    model: Any,
    layers: Iterable[nn.Module],
    ranks: Ranks,
    *,
    device: str,
    precision: str,
    offload: bool,
) -> None:
    """Shard ``model``, which lies whole on the CPU of each rank, over the ranks, in place.

    Each of ``layers`` is gathered by itself, and what is left (embeddings, heads) as one. With precision bf16
    weights are gathered as bf16, and gradients summed in float32. ``offload`` keeps the shards and the
    optimizer's step in main memory. The model's vectors are computed on ``device``.
    """
    settings: dict[str, Any] = {"mesh": init_device_mesh(device, (ranks.share.size,))}
    if precision == "bf16":
        settings["mp_policy"] = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False
        )
    if offload:
        settings["offload_policy"] = CPUOffloadPolicy(pin_memory=device == "cuda")
    model.recomputing = False
    for layer in layers:
        fully_shard(layer, **settings)
        layer.register_forward_hook(lambda layer, *_: layer.reshard() if model.recomputing else None)
    fully_shard(model, **settings)
    for part in sharded_parts(model):
        # The loss is that of the whole batch: the gradients of the ranks' texts are summed, not averaged.
        part.set_gradient_divide_factor(1.0)
        part.set_force_sum_reduction_for_comms(True)  # a divisor is multiplied in by NCCL alone
    model.computes_on = torch.device(device)
    model.ranks = ranks
    ranks.model = model


def is_sharded(model: Any) -> bool:
    return isinstance(model, FSDPModule)


@contextlib.contextmanager
def recomputing(model: Any) -> Iterator[None]:
    """A micro-batch's forward pass inside of the backward pass, where FSDP2 takes every layer for one whose
    backward pass is next, and leaves it gathered: in the end the whole model would be."""
    model.recomputing = True
    try:
        yield
    finally:
        model.recomputing = False


def sharded_parts(model: nn.Module) -> list[FSDPModule]:
    return [part for part in model.modules() if isinstance(part, FSDPModule)]


# -- whole tensors and parts ---------------------------------------------------------------------------------


def gather_tensor(value: Any) -> Any:
    """The whole of a sharded tensor, on its device; anything else as it is. All ranks must call it."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def part_of(whole: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """This rank's part of ``whole``, sharded as ``like`` is; ``whole`` itself where that is not sharded.

    Nothing is sent: all ranks must have the same ``whole``.
    """
    if not isinstance(like, DTensor):
        return whole
    found = distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None)
    return found.to(like.device)


def gather_optimizer_state(optimizer: Any, *, keep: bool) -> dict[str, Any]:
    """As the optimizer's ``state_dict``, with whole tensors in main memory. All ranks must call it.

    Who does not ``keep`` it gets an empty state.
    """
    known = optimizer.state_dict()
    found: dict[int, dict[str, Any]] = {}
    for number, values in known["state"].items():
        whole = {name: _to_cpu(gather_tensor(value)) for name, value in values.items()}
        if keep:
            found[number] = whole
    return {**known, "state": found}


def load_optimizer_state(optimizer: Any, state: dict[str, Any]) -> None:
    """Load what `gather_optimizer_state` has given, or an optimizer of a model that is not sharded."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    parts = {
        number: {
            name: part_of(value, parameters[number])
            if isinstance(value, torch.Tensor) and value.shape == parameters[number].shape
            else value
            for name, value in values.items()
        }
        for number, values in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": parts})


def _to_cpu(value: Any) -> Any:
    return value.cpu() if isinstance(value, torch.Tensor) else value


def unshard_model(ranks: Ranks) -> None:
    """Give the first rank's model its whole weights, in main memory, to be saved. All ranks must call it.

    The model cannot be run afterwards, and on the other ranks not be used at all.
    """
    model = ranks.model
    reshard(ranks)
    whole: dict[nn.Parameter, nn.Parameter] = {}
    for parameter in model.parameters():  # each once, also where modules share it
        tensor = gather_tensor(parameter.detach())
        if ranks.first:
            whole[parameter] = nn.Parameter(tensor.cpu(), requires_grad=parameter.requires_grad)
    if ranks.first:
        for module in model.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                setattr(module, name, whole[parameter])
        for part in sharded_parts(model):
            part.__class__ = type(part).__bases__[1]  # fully_shard has put its own class before it
        model.to("cpu")


def reshard(ranks: Ranks) -> None:
    """Free what a forward pass without a backward pass has left gathered."""
    for part in sharded_parts(ranks.model):
        part.reshard()


# -- the same passes on all ranks --------------------------------------------------------------------------


Compute = Callable[[Any, MicroBatch], T]
"""(model, micro-batch) -> vectors or scores. A function of a module, or a `partial` of one: it is pickled."""


def compute_together(
    model: Any,
    micro_batches: Iterable[MicroBatch],
    compute: Compute[T],
    check_stop: Callable[[], None],
) -> list[T]:
    """What ``compute`` makes of each with a sharded model, in their order.

    The first rank calls it inside of `Ranks.broadcast_from_rank0`; each rank takes one of every round.
    """
    ranks: Ranks = model.ranks
    found: list[T] = []
    remaining = iter(micro_batches)
    while round_ := list(itertools.islice(remaining, ranks.share.size)):
        check_stop()
        found += ranks.call_on_all_ranks(_compute_own, compute, round_)[: len(round_)]
    ranks.call_on_all_ranks(reshard)
    return [one.to(model.computes_on) if isinstance(one, torch.Tensor) else one for one in found]


def _compute_own(ranks: Ranks, compute: Compute[T], round_: list[MicroBatch]) -> Any:
    """Where there are fewer micro-batches than ranks, some compute the last one once more."""
    model = ranks.model
    own = round_[min(ranks.share.rank, len(round_) - 1)]
    # Not inference mode: weights that are gathered in it could not be trained any more.
    with in_evaluation_mode(model), torch.no_grad():
        return _to_cpu(compute(model, move_micro_batch(own, model.computes_on)))
