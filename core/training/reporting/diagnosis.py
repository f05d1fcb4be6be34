"""What a training that has run out of memory would have needed: one micro-batch on the CPU, part by part.

The last thing before the job ends as ``out_of_memory``: whoever reads the end reason learns which part is too
large, and which settings would fit.
"""

import logging
from dataclasses import dataclass
from typing import Any

import psutil
import torch

from core.engine.micro_batches import MicroBatch, move_micro_batch, split_micro_batches, tokens_of
from core.families.static import is_static
from core.models.memory import OPTIMIZER_BYTES, Step
from core.runtime.context import RunContext
from core.runtime.devices import free_memory, release_memory
from core.spec.parts.training import LoRA
from core.spec.train import TrainSpec
from core.training.prepare import Prepared
from core.training.trainer import PairTrainer

_ROOM = 0.9
"""Of a device's memory, that a training may take."""

_BESIDE = 1_000_000_000
"""Bytes that the diagnosis needs beside weights and gradients, roughly."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Measured:
    """Bytes by part where ``tokens`` of ``texts`` go through the model at once, without the loss."""

    texts: int
    tokens: int
    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations

    def __str__(self) -> str:
        parts = ("weights", "gradients", "optimizer", "activations")
        told = ", ".join(f"{part} {getattr(self, part) / 1e9:.2f} GB" for part in parts)
        return (
            f"{self.texts} text{'s' if self.texts > 1 else ''} of {self.tokens} tokens: {told}, together "
            f"{self.total / 1e9:.2f} GB"
        )


def explain_out_of_memory(
    spec: TrainSpec, context: RunContext, prepared: Prepared, trainer: PairTrainer
) -> str:
    """Sentences on what the training needs and what would fit. Whatever goes wrong here, it returns some.

    The model is moved to the CPU and cannot be trained afterwards. Nothing is measured where the CPU's memory
    would not suffice, or when the job is asked to stop.
    """
    context.phase("diagnosing")
    room = device_memory(prepared.device)
    where = "the machine" if prepared.device == "cpu" else "the GPU"
    told = ""
    measured = None
    if not context.should_stop() and _has_room(prepared):
        try:
            measured = _measure(spec, prepared, trainer)
        except Exception:  # noqa: BLE001 - it must not hide why the job ends
            _log.exception("The diagnosis on the CPU failed")
    if measured is not None:
        told = f"Measured on the CPU with {measured}; {where} has {room / 1e9:.2f} GB. "
    fitting = what_fits(spec, prepared, int(_ROOM * room), context.request.processes)
    if fitting:
        return told + f"By the estimate these would fit: {'; '.join(fitting)}."
    return told + f"By the estimate nothing that keeps this model fits {where}: use a smaller one."


def device_memory(device: str) -> int:
    """Bytes that a device has in all."""
    if device == "cuda":
        return int(torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory)
    if device == "mps":
        return int(torch.mps.recommended_max_memory())
    return int(psutil.virtual_memory().total)


def _has_room(prepared: Prepared) -> bool:
    """Whether the machine has memory for the weights, where they are not there yet, and their gradients. A
    process that takes more than there is would be killed, and could say nothing."""
    trained = [parameter for parameter in prepared.model.parameters() if parameter.requires_grad]
    needed = _bytes(trained) + (0 if prepared.device == "cpu" else _bytes(prepared.model.parameters()))
    return free_memory("cpu") > needed + _BESIDE


def _measure(spec: TrainSpec, prepared: Prepared, trainer: PairTrainer) -> Measured | None:
    """Forward and backward pass of the longest text of the batch that did not fit; None without one."""
    if not trainer.window.batches or spec.quantization is not None or spec.sharding == "fsdp":
        return None
    inputs, _ = trainer.window.batches[-1]
    batches = trainer.limits.apply(inputs).texts.parts
    longest: MicroBatch = max(batches, key=lambda batch: batch["input_ids"].shape[1])
    few = split_micro_batches([longest], 1)[0]
    model = prepared.model
    model.zero_grad(set_to_none=True)
    trainer.optimizer = None
    model.to("cpu")
    release_memory()
    kept: dict[int, int] = {}

    def count(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        vectors = trainer.forward(model, move_micro_batch(few, "cpu"))
        vectors.float().sum().backward()
    activations = sum(size for place, size in kept.items() if place not in weights)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return Measured(
        texts=len(few["input_ids"]),
        tokens=tokens_of(few),
        weights=_bytes(model.parameters()),
        gradients=_bytes(trained),
        optimizer=OPTIMIZER_BYTES[spec.optimizer] * sum(parameter.numel() for parameter in trained),
        activations=activations,
    )


def _bytes(parameters: Any) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in parameters)


def what_fits(spec: TrainSpec, prepared: Prepared, room: int, processes: int) -> list[str]:
    """Changes of the spec whose estimated peak is within ``room`` bytes, the least ones first."""
    limits, whole = prepared.lengths.limits, prepared.longest
    half = Step(max(8, limits["query"] // 2), max(8, limits["document"] // 2), whole.documents_per_row)
    small = {"micro_batch_tokens": 64, "micro_batch_size": None}
    adapters = {"lora": LoRA(), "freeze_base": False, "train_last_n": None}
    changes: list[tuple[str, dict[str, Any], Step]] = [
        ("gradient_checkpointing: true", {"gradient_checkpointing": True}, whole),
        (f"lengths of {half.query_length} and {half.document_length} tokens", {}, half),
        ("optimizer: adamw_8bit", {"optimizer": "adamw_8bit"}, whole),
        ("optimizer: adafactor", {"optimizer": "adafactor"}, whole),
    ]
    if spec.lora is None and not is_static(prepared.model):
        changes.append(("lora", adapters, whole))
        changes.append(
            ("lora with gradient_checkpointing", {**adapters, "gradient_checkpointing": True}, whole)
        )
    if spec.quantization is None and spec.family == "dense" and not is_static(prepared.model):
        changes.append(("lora with quantization: int4", {**adapters, "quantization": "int4"}, whole))
    found = []
    for name, change, step in changes:
        if all(getattr(spec, field) == value for field, value in change.items()) and step == whole:
            continue
        changed = spec.model_copy(update={**small, **change})
        needed = prepared.memory(changed, processes, cached=True, step=step).total
        if needed <= room:
            found.append(f"{name} ({needed / 1e9:.2f} GB)")
    return found
