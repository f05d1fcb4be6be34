"""The Hugging Face trainer, with our batches, our encoding and checkpoints that restore exactly."""

import contextlib
import math
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME

from core.engine.batch import Batch
from core.engine.batching import TrainingBatches
from core.engine.encoding import Forward, encode_micro_batches
from core.engine.micro_batches import is_out_of_memory
from core.engine.ranks import Ranks, ShortElsewhere
from core.engine.sharding import (
    gather_optimizer_state,
    gather_tensor,
    is_sharded,
    load_optimizer_state,
)
from core.engine.tokens import TokenRow
from core.errors import Diverged, OutOfMemory, ReasonError, StorageFailure
from core.native_errors import first_line, is_memory_error, writing
from core.runtime.devices import release_memory
from core.runtime.orphans import end_with_parent
from core.training.adapters import restore_trained_state, trained_state
from core.training.callbacks import Throughput
from core.training.checkpoints.checkpoint import WEIGHTS
from core.training.recovery import (
    AGAINST_DIVERGENCE,
    NO_SECOND_TRY,
    Limits,
    Window,
    bad_gradient,
    bad_parameter,
    describe,
    free_memory_in_step,
)

_PATIENCE = 3
_LEAST_SCALE = 1.0


def _follow_the_trainer(_worker: int) -> None:
    """Stopping is left to the trainer: Ctrl-C reaches the whole group, and without its workers it could save
    nothing. Not SIGTERM: that is how the workers themselves are ended. But they never outlive it: one that
    waits for a killed trainer's queue would wait for ever.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


class DamagedCheckpoint(StorageFailure):
    """A checkpoint that is whole by its manifest, and whose files cannot be loaded."""

    def __init__(self, path: Path, error: BaseException) -> None:
        super().__init__(
            f"{path.parent.name}/{path.name} is damaged: {first_line(error)}. It is passed over from now on; "
            "the next attempt goes on from the one before it."
        )
        self.path = path


@contextlib.contextmanager
def _loading(checkpoint: str | None) -> Iterator[None]:
    """Turn what a library raises while it loads a part of a checkpoint into `DamagedCheckpoint`."""
    try:
        yield
    except ReasonError:
        raise
    except Exception as error:
        if checkpoint is None or is_memory_error(error):
            raise
        raise DamagedCheckpoint(Path(checkpoint), error) from error


class PairTrainer(Trainer):
    """Trains a sentence-transformers model on (query, positive, negatives) rows.

    ``collator`` turns rows into a `Batch`; ``objective`` takes the vectors that ``forward`` makes of its
    texts, and the batch. ``limits`` says how much goes through the model at
    once, and is narrowed when memory does not suffice; ``tell`` gets a sentence about every recovery.
    ``ranks`` are the processes that share the batches: the trainer itself knows of none but its own. ``held``
    says how much freed memory may be kept, with gradient caching and without.
    """

    def __init__(
        self,
        *,
        batches: TrainingBatches,
        collator: Callable[[list[TokenRow]], Batch[Any]],
        forward: Forward,
        objective: torch.nn.Module,
        limits: Limits,
        throughput: Throughput,
        tell: Callable[[str], None],
        ranks: Ranks,
        held: Callable[[bool], int | None],
        **arguments: Any,
    ) -> None:
        self._sharded = is_sharded(arguments["model"])
        super().__init__(data_collator=collator, **arguments)
        self.remove_callback(PrinterCallback)  # our own callbacks tell, through the reporter
        self._batches, self._throughput = batches, throughput
        self.forward = forward
        self._objective, self.limits, self._tell = objective, limits, tell
        self._ranks, self._held = ranks, held
        self.window = Window()
        self._left_out = 0

    def _move_model_to_device(self, model: torch.nn.Module, device: torch.device) -> None:
        """A sharded model lies where it must, which is the CPU with ``offload``."""
        if not self._sharded:
            super()._move_model_to_device(model, device)

    def create_optimizer(self, *arguments: Any, **named: Any) -> torch.optim.Optimizer:
        """As the library's, whose step is tried again after memory for it was freed."""
        known = self.optimizer
        optimizer = super().create_optimizer(*arguments, **named)
        if known is None:
            free_memory_in_step(optimizer, self._tell_step)
        return optimizer

    def _tell_step(self, problem: str) -> None:
        self._tell(
            f"Out of memory in the optimizer's step {self.state.global_step + 1}: freed memory was given "
            f"back, and the step was tried again. ({problem})"
        )

    def get_train_dataloader(self) -> DataLoader:
        loader = DataLoader(
            self.train_dataset,
            batch_sampler=self._batches,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
            prefetch_factor=self.args.dataloader_prefetch_factor,
            worker_init_fn=_follow_the_trainer,
            persistent_workers=self.args.dataloader_num_workers > 0,
            generator=torch.Generator().manual_seed(self.args.seed),  # leaves the dropout's generator alone
        )
        return self.accelerator.prepare(loader)

    # The library looks for labels and for "input_ids" in a batch, which it takes for a dict.

    def _get_num_items_in_batch(self, *_: Any) -> None:
        return None

    def floating_point_ops(self, _: Any) -> int:
        return 0

    def _prepare_inputs(self, inputs: Batch[Any]) -> Batch[Any]:
        return inputs.to(self.args.device)

    def compute_loss(
        self, model: Any, inputs: Batch[Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        inputs = self._within_limits(inputs)
        loss = self._objective(self._embed(model, inputs), inputs)
        return (loss, {}) if return_outputs else loss

    def _within_limits(self, inputs: Batch[Any]) -> Batch[Any]:
        """In smaller micro-batches where need be; a sharded model wants as many of them on every rank."""
        inputs = self.limits.apply(inputs)
        if self._sharded:
            [most] = self._ranks.all_reduce_max([len(inputs.texts.parts)])
            inputs = replace(inputs, texts=inputs.texts.split_into(most))
        return inputs

    def _embed(self, model: Any, inputs: Batch[Any]) -> torch.Tensor:
        """[queries + documents, dim] of a batch that is within the limits."""
        return encode_micro_batches(
            model,
            inputs.texts,
            forward=self.forward,
            cached=self.limits.cached,
            held=self._held(self.limits.cached),
            gather=self._ranks.gather,
        )

    # -- recovery inside a step: see `core.training.recovery` ----------------------------------------

    def training_step(self, model: Any, inputs: Batch[Any], num_items_in_batch: Any = None) -> torch.Tensor:
        last = self.accelerator.gradient_state.sync_gradients
        self._ranks.reseed(self.args.seed, self.state.global_step, self.window.count)
        self.window.add(inputs, self._tr_loss, last=last)
        todo = self.window.batches[-1:]
        while True:
            try:
                for batch, random_state in todo:
                    random_state.restore()
                    loss = super().training_step(model, batch, num_items_in_batch)
                if last and not self._sharded:  # whose gradients are summed as they come
                    self._ranks.sum_gradients(model.parameters())
                self._throughput.add(inputs.queries, inputs.tokens)
                return loss
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                problem = str(error).partition("\n")[0]
                here = not isinstance(error, ShortElsewhere)
            # Outside of the except block: the exception holds the tensors of the failed step.
            if self._sharded:  # the others wait for this rank's part of a layer, and nobody can call them off
                raise OutOfMemory(
                    f"Step {self.state.global_step + 1} does not fit. {NO_SECOND_TRY} ({problem})"
                )
            if here:
                self._ranks.meet(failed=True)
            narrowed = self.limits.narrow(
                self.state.global_step + 1, self.window, problem, most=self._ranks.all_reduce_max
            )
            self._tell(narrowed)
            model.zero_grad()
            release_memory()
            todo = list(self.window.batches)

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> float | None:
        """Of the update that follows. The library asks for the number anyway: looking at it costs nothing."""
        norm = gather_tensor(super()._get_grad_norm(model, grad_norm=grad_norm))
        if norm is None or math.isfinite(norm):
            self._left_out = 0
            return norm
        step = self.state.global_step + 1
        if bad := bad_parameter(model):
            raise Diverged(f"At step {step} the weights are no numbers any more. {bad}. {AGAINST_DIVERGENCE}")
        bad = bad_gradient(model) or "the gradients' norm overflows"
        # The layers of a sharded model are gathered in one precision alone.
        if (precision := self.accelerator.mixed_precision) != "no" and not self._sharded:
            again = self._try_again_in_float32(model)
            if again is None:
                self._tell(f"Step {step} was left out: in {precision} {bad}; float32 needs more memory.")
                return norm
            norm, embeddings = again
            bad += f"; {embeddings}"
            if math.isfinite(norm):
                self._left_out = 0
                self._tell(f"Step {step} was done again in float32: in {precision} {bad}.")
                return norm
        self._left_out += 1
        if self._left_out >= _PATIENCE:
            raise Diverged(
                f"The gradients were no numbers in {self._left_out} steps in a row, up to step {step}. "
                f"{bad}. {AGAINST_DIVERGENCE}"
            )
        self._tell(f"Step {step} was left out: {bad}.")
        model.zero_grad(set_to_none=True)  # without gradients the optimizer does nothing
        self._set_loss(torch.zeros_like(self._tr_loss))
        return norm

    def _try_again_in_float32(self, model: Any) -> tuple[float, str] | None:
        """The norm of the update's gradients in float32, clipped as usual, and what its embeddings were.

        None where memory does not suffice: then there are no gradients, and the update does nothing.
        """
        scaler = self.accelerator.scaler
        scale = scaler.get_scale() if scaler is not None else 1.0
        try:
            finite, embeddings = self._describe_embeddings(model)
            return self._again_in_float32(model, scale_less=finite), embeddings
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            here = not isinstance(error, ShortElsewhere)
        # Outside of the except block: the exception holds the tensors of the failed step.
        if here:
            self._ranks.meet(failed=True)
        model.zero_grad(set_to_none=True)
        release_memory()
        if scaler is not None:
            # It counts what it has looked at, and skips the update where that is not finite.
            some = next(parameter for parameter in model.parameters() if parameter.requires_grad)
            some.grad = torch.full_like(some, math.inf)
            scaler.update(scale)
            self.accelerator.unscale_gradients()
            model.zero_grad(set_to_none=True)
        self._set_loss(torch.zeros_like(self._tr_loss))
        return None

    def _again_in_float32(self, model: Any, *, scale_less: bool) -> float:
        """The whole update once more, without autocast. Returns its gradients' norm, clipped as usual.

        ``scale_less``: what overflowed was scaled, and not the model's own numbers.
        """
        model.zero_grad()
        scaler = self.accelerator.scaler
        if scaler is not None:
            # Also lets the scaler look at the gradients that come now.
            scale = scaler.get_scale()
            less = max(_LEAST_SCALE, scale * scaler.get_backoff_factor())
            scaler.update(min(scale, less) if scale_less else scale)
        losses = []
        for batch, random_state in self.window.batches:
            random_state.restore()
            with torch.autocast(self.args.device.type, enabled=False), self._plain_forward(model):
                loss = self.compute_loss(model, self._prepare_inputs(batch))
                loss = loss / self.current_gradient_accumulation_steps
            self.accelerator.backward(loss)
            losses.append(loss.detach())
        self._ranks.sum_gradients(model.parameters())
        self._set_loss(torch.stack(losses).sum())
        limit = self.args.max_grad_norm if self.args.max_grad_norm > 0 else float("inf")
        return float(self.accelerator.clip_grad_norm_(model.parameters(), limit))

    def _describe_embeddings(self, model: Any) -> tuple[bool, str]:
        """What the failed update's first batch is encoded as, in its own precision; whether all of it is
        finite."""
        batch, random_state = self.window.batches[0]
        random_state.restore()
        with torch.no_grad():
            found = self._embed(model, self._within_limits(self._prepare_inputs(batch)))
        return bool(torch.isfinite(found).all()), describe("embeddings", found)

    @contextlib.contextmanager
    def _plain_forward(self, model: Any) -> Iterator[None]:
        """accelerate wraps ``forward`` into autocast; its original is kept beside it."""
        wrapped = model.__dict__.get("forward")
        if hasattr(model, "_original_forward"):
            model.forward = model._original_forward
        try:
            yield
        finally:
            if wrapped is not None:
                model.forward = wrapped

    def _set_loss(self, of_window: torch.Tensor) -> None:
        """What the log says of this update."""
        assert self.window.loss_before is not None
        self._tr_loss = self.window.loss_before + of_window

    # What is trained, tensor by tensor, and nothing else: what `SentenceTransformer(path)` would rebuild is
    # not always what was trained (adapters come back as zeros, casts are lost).

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        self.save_weights(folder / WEIGHTS)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        step = self.state.global_step
        if not self._ranks.first:  # it only gives its shards, in the same order
            self._trained_state()
            self._optimizer_state()
            return
        with writing(f"Saving the checkpoint of step {step}", Path(self.args.output_dir)):
            super()._save_checkpoint(model, trial)

    def _load_from_checkpoint(self, checkpoint_path: str, model: Any = None) -> None:
        with _loading(checkpoint_path):
            self._restore(Path(checkpoint_path) / WEIGHTS)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self._sharded:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        torch.save(self._optimizer_state(), Path(output_dir) / OPTIMIZER_NAME)
        torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER_NAME)

    def _optimizer_state(self) -> dict[str, Any]:
        return gather_optimizer_state(self.optimizer, keep=self._ranks.first)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with _loading(checkpoint):
            if not self._sharded or checkpoint is None:
                super()._load_optimizer_and_scheduler(checkpoint)
                return
            folder = Path(checkpoint)
            state = torch.load(folder / OPTIMIZER_NAME, map_location="cpu", weights_only=True, mmap=True)
            load_optimizer_state(self.optimizer, state)
            self.lr_scheduler.load_state_dict(torch.load(folder / SCHEDULER_NAME, weights_only=True))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with _loading(checkpoint):
            super()._load_rng_state(checkpoint)

    def _load_scaler(self, checkpoint: str | None) -> None:
        with _loading(checkpoint):
            super()._load_scaler(checkpoint)

    def save_weights(self, path: Path) -> None:
        """Write what is trained. Of a sharded model all ranks must call it, and the first one writes.

        Raises `StorageFailure`.
        """
        state = self._trained_state()
        if self._ranks.first:
            with writing("Saving the weights", path.parent):
                save_file(state, str(path))

    def _trained_state(self) -> dict[str, torch.Tensor]:
        return trained_state(self.accelerator.unwrap_model(self.model), keep=self._ranks.first)

    def load_weights(self, path: Path) -> None:
        """Read what `save_weights` wrote in this attempt. The first rank calls it, while the others wait in
        `Ranks.broadcast_from_rank0`. Raises `StorageFailure`."""
        try:
            if self._sharded:
                self._ranks.call_on_all_ranks(_restore_on, path)
            else:
                self._restore(path)
        except (OSError, SafetensorError) as error:
            raise StorageFailure(
                f"The best weights cannot be read from {path}: {first_line(error)}"
            ) from error

    def _restore(self, path: Path) -> None:
        device = "cpu" if self._sharded else str(self.args.device)
        model = self.accelerator.unwrap_model(self.model)
        restore_trained_state(model, load_file(str(path), device=device))


def _restore_on(ranks: Ranks, path: Path) -> None:
    restore_trained_state(ranks.model, load_file(str(path)))
