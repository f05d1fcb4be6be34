"""A spec's fields as the trainer's arguments, and the devices and precisions behind them."""

import importlib.util
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from core.errors import BadSpec
from core.spec.train import TrainSpec

_OPTIMIZERS = {
    "adamw": "adamw_torch_fused",  # on a CPU as well: ten times the speed of the plain loop over tensors
    "adamw_8bit": "adamw_bnb_8bit",
    "paged_adamw_8bit": "paged_adamw_8bit",
    "adafactor": "adafactor",
    "sgd": "sgd",
}

_WORKERS = {"cpu": 0, "cuda": 2, "mps": 0}
"""A batch is made in milliseconds: nothing beside a step on a CPU, something beside one on a GPU."""


def first_free_batch(spec: TrainSpec, device: str, step: int) -> int:
    """The first of the sequence that the data loader has not taken when that step ends: what changes the
    sequence from there on is found the same by who goes on."""
    ahead = 3 + spec.prefetch_batches * loader_workers(spec, device)
    return step * spec.gradient_accumulation_steps + ahead


def choose_trackers(spec: TrainSpec) -> list[str]:
    """The experiment trackers to report to. Raises `BadSpec` for one that is not installed."""
    for name in spec.trackers:
        if importlib.util.find_spec(name) is None:
            raise BadSpec(f"trackers: {name} is not installed where the job runs (pip install {name})")
    return list(spec.trackers)


def loader_workers(spec: TrainSpec, device: str) -> int:
    """Processes that make batches ahead."""
    return _WORKERS[device] if spec.data_loader_workers == "auto" else spec.data_loader_workers


def training_arguments(
    spec: TrainSpec,
    folder: Path,
    *,
    job_id: str,
    steps: int,
    device: str,
    precision: str,
    trackers: list[str],
) -> TrainingArguments:
    """``steps`` are optimizer updates, the whole training's."""
    workers = loader_workers(spec, device)
    settings: dict[str, Any] = {
        "output_dir": str(folder),
        "max_steps": steps,
        "per_device_train_batch_size": spec.batch_size,
        "gradient_accumulation_steps": spec.gradient_accumulation_steps,
        "learning_rate": spec.learning_rate,
        "lr_scheduler_type": spec.scheduler,
        "warmup_steps": min(steps, round(spec.warmup_ratio * steps)),
        "weight_decay": spec.weight_decay,
        "max_grad_norm": spec.max_gradient_norm,
        "optim": _OPTIMIZERS[spec.optimizer],
        "bf16": precision == "bf16",
        "fp16": precision == "fp16",
        "use_cpu": device == "cpu",
        "seed": spec.seed,
        "gradient_checkpointing": spec.gradient_checkpointing,
        "torch_compile": spec.compile,
        "dataloader_num_workers": workers,
        "dataloader_prefetch_factor": spec.prefetch_batches if workers else None,
        "dataloader_pin_memory": device == "cuda",
        "accelerator_config": {"non_blocking": device == "cuda", "even_batches": False},
        # A curve needs points: short trainings log more often than asked.
        "logging_steps": max(1, min(spec.logging_steps, steps // 20)),
        "logging_first_step": True,
        "logging_nan_inf_filter": False,  # it would hide that the loss is no longer a number
        "remove_unused_columns": False,
        "eval_strategy": "no",  # evaluating and saving are our callbacks' business
        "save_strategy": "no",
        "report_to": trackers,
        "run_name": spec.name or job_id,
        "disable_tqdm": True,
    }
    return TrainingArguments(**settings)
