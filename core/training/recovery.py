"""Going on where a step fails: too little memory, or numbers that are none.

The batch, and so its in-batch negatives, never changes. Too little memory: the batches since the last update
are done again under the same random state, first with gradient caching, then in smaller and smaller
micro-batches. Numbers that are none: the update is done again in float32, then left out, then training ends
with the tensor that went wrong.
"""

import functools
import types
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from core.engine.batch import Batch
from core.engine.micro_batches import is_out_of_memory, tokens_of
from core.engine.sharding import gather_tensor
from core.errors import OutOfMemory
from core.runtime.devices import mps_available, release_memory

AGAINST_DIVERGENCE = "Lower learning_rate, raise loss.temperature, or use precision fp32."

NO_SECOND_TRY = (
    "A step of a model in shards cannot be done again. Lower micro_batch_tokens with loss.cached true, use "
    "shorter lengths, gradient_checkpointing, more GPUs (resources.gpus) or offload."
)


@dataclass
class RandomState:
    """Of the generators that dropout draws from."""

    cpu: torch.Tensor = field(default_factory=torch.get_rng_state)
    cuda: torch.Tensor | None = field(
        default_factory=lambda: torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None
    )
    mps: torch.Tensor | None = field(
        default_factory=lambda: torch.mps.get_rng_state() if mps_available() else None
    )

    def restore(self) -> None:
        torch.set_rng_state(self.cpu)
        if self.cuda is not None:
            torch.cuda.set_rng_state(self.cuda)
        if self.mps is not None:
            torch.mps.set_rng_state(self.mps)


@dataclass
class Window:
    """The batches since the last update, to do them again."""

    batches: list[tuple[Batch[Any], RandomState]] = field(default_factory=list)
    loss_before: torch.Tensor | None = None  # the trainer's running sum when the window began
    closed: bool = True

    @property
    def count(self) -> int:
        """Batches of the window that the next one belongs to."""
        return 0 if self.closed else len(self.batches)

    def add(self, inputs: Batch[Any], loss_sum: torch.Tensor, *, last: bool) -> None:
        """``last``: the update follows."""
        if self.closed:
            self.batches, self.loss_before = [], loss_sum.detach().clone()
        self.batches.append((inputs, RandomState()))
        self.closed = last


@dataclass
class Limits:
    """How much goes through the model at once. Narrowed by want of memory, kept in checkpoints."""

    cached: bool
    tokens: int | None = None  # of a micro-batch; None: as the collator makes them

    def apply(self, batch: Batch[Any]) -> Batch[Any]:
        """The same batch in smaller micro-batches where need be."""
        return batch if self.tokens is None else batch.split(self.tokens)

    def narrow(
        self,
        step: int,
        window: Window,
        problem: str,
        most: Callable[[Sequence[int]], list[int]] = list,
    ) -> str:
        """One step down. Returns a sentence; raises `OutOfMemory` when there is none left.

        ``most`` gives the largest numbers of all processes: each narrows by the widest of them.
        """
        if not self.cached:
            self.cached = True
            return (
                f"Out of memory at step {step}: from here on the loss is computed in micro-batches (gradient "
                f"caching). The batch stays as it is. ({problem})"
            )
        now = [part for batch, _ in window.batches for part in self.apply(batch).texts.parts]
        texts, tokens = most(
            [max(len(found["input_ids"]) for found in now), max(tokens_of(found) for found in now)]
        )
        if texts == 1:
            raise OutOfMemory(
                "There is too little memory for a single text. Use shorter lengths, gradient_checkpointing, "
                f"lora with quantization, or a smaller model. ({problem})"
            )
        self.tokens = tokens // 2
        return (
            f"Out of memory at step {step}: from here on micro-batches have at most {self.tokens} tokens. "
            f"The batch stays as it is. ({problem})"
        )


def describe(name: str, tensor: torch.Tensor) -> str:
    """A sentence on a tensor that holds numbers that are none."""
    finite = torch.isfinite(tensor)
    good = tensor[finite].float()
    rest = "no finite number in it"
    if len(good):
        deviation = good.std(correction=0).item()
        rest = (
            f"the finite ones: mean {good.mean().item():.4g}, std {deviation:.4g}, "
            f"min {good.min().item():.4g}, max {good.max().item():.4g}"
        )
    nans = int(torch.isnan(tensor).sum())
    infinite = int((~finite).sum()) - nans
    return f"{name} {list(tensor.shape)}: {nans} NaN, {infinite} infinite of {tensor.numel()}; {rest}"


def bad_tensor(named: Iterable[tuple[str, torch.Tensor]]) -> str | None:
    """The first tensor that is not all numbers, described; None when all are. Where tensors are sharded, all
    ranks must call it."""
    for name, sharded in named:
        tensor = gather_tensor(sharded)
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            return describe(name, tensor.detach())
    return None


def bad_parameter(model: nn.Module) -> str | None:
    return bad_tensor((f"weight {name}", tensor) for name, tensor in model.named_parameters())


def bad_gradient(model: nn.Module) -> str | None:
    return bad_tensor(
        (f"gradient of {name}", parameter.grad)
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    )


# -- the optimizer's step --------------------------------------------------------------------------------


def free_memory_in_step(optimizer: torch.optim.Optimizer, tell: Callable[[str], None]) -> None:
    """Make the optimizer's ``step`` try a second time, in place, where memory does not suffice.

    The first step allocates the optimizer's state, when memory that the batch no longer needs is still
    cached. The step raises `OutOfMemory` where freeing that does not help, and where some parameters may have
    been updated already: a second step would update those twice.
    """
    step = optimizer.step

    @functools.wraps(step)
    def again(_: torch.optim.Optimizer, *arguments: Any, **named: Any) -> Any:
        before = {parameter: _steps_taken(state) for parameter, state in optimizer.state.items()}
        try:
            return step(*arguments, **named)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            problem = str(error).partition("\n")[0]
        # Outside of the except block: the exception holds what the step had allocated.
        if not _forget_half_a_step(optimizer, before):
            raise OutOfMemory(
                f"There is too little memory for the optimizer's step, which broke off halfway. ({problem})"
            )
        release_memory()
        try:
            found = step(*arguments, **named)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            problem = str(error).partition("\n")[0]
            raise OutOfMemory(f"There is too little memory for the optimizer's step. ({problem})") from error
        tell(problem)
        return found

    optimizer.step = types.MethodType(again, optimizer)


def _steps_taken(state: dict[str, Any]) -> object:
    """What changes with each update of a parameter. A tensor's own counter: reading a GPU's would wait."""
    step = state.get("step")
    return step._version if isinstance(step, torch.Tensor) else step


def _forget_half_a_step(optimizer: torch.optim.Optimizer, before: dict[Any, object]) -> bool:
    """Drop the states that a failed step has begun. False where a parameter may have been updated: then
    nothing is dropped."""
    if isinstance(optimizer, torch.optim.SGD):
        return False  # it counts no steps, and so does not tell how far it came
    begun = [parameter for parameter in optimizer.state if parameter not in before]
    if any(_steps_taken(optimizer.state[parameter]) != taken for parameter, taken in before.items()):
        return False
    if any(float(optimizer.state[parameter].get("step", 0)) > 0 for parameter in begun):
        return False
    for parameter in begun:
        del optimizer.state[parameter]
    return True
