"""``reason-train``: one training by flags, without the service. `reason run` does the same with YAML."""

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from core.cli.flags import add_field, add_output_flags, parse_flags
from core.cli.run import run_and_tell
from core.errors import InvalidRequest, Problem
from core.jobs.protocol import REQUEST
from core.spec.files import localize
from core.spec.parts.models import PruneEmbeddings
from core.spec.parts.training import Checkpointing, Lengths, LoRA, PruneTokens
from core.spec.train import TrainSpec

_SMOKE_STEPS = 5
"""Updates of ``--action smoke_steps``."""

_SWITCHES = {
    "lora": ("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "quantization"),
    "prune_tokens": ("prune_strategy", "prune_keep_ratio", "prune_min_tokens", "prune_seed"),
    "prune_embeddings": (
        "embedding_prune_strategy",
        "pool_factor",
        "embedding_keep_ratio",
        "protected_tokens",
    ),
}
"""Flags that mean nothing without another one."""


def main(arguments: list[str] | None = None) -> int:
    """Return the exit status: 0 success, 1 the job failed, 2 invalid usage, 3 stopped."""
    asked = parse_flags(_parser(), arguments)
    out = output_folder(asked)
    again = asked.overwrite or _holds_a_dry_run(out)  # nothing that one would miss
    status = run_and_tell(
        lambda: to_spec(asked), out, overwrite=again, as_json=asked.json, processes=asked.processes
    )
    if status == 0 and not asked.dry_run:
        _finalize(out)
    return status


def output_folder(asked: argparse.Namespace) -> Path:
    """``--output_dir`` itself, or ``data/output/<model>/<run>``; -dry and -smoke where it is only tried."""
    if asked.output_dir is not None:
        return Path(asked.output_dir)
    model: str = asked.base_model.rstrip("/").rpartition("/")[2]
    run = asked.run_name or f"{model}-{Path(asked.dataset_path).name.partition('.')[0]}"
    kind = "-dry" if asked.dry_run else "-smoke" if asked.action == "smoke_steps" else ""
    return Path("data") / "output" / model / f"{run}{kind}"


def to_spec(asked: argparse.Namespace) -> dict[str, Any]:
    """Return the flags as a job spec. Raises `InvalidRequest` for flags that do not go together."""
    _check_flags(asked)
    gpus = 0 if asked.cpu else "auto" if asked.gpus is None else asked.gpus
    batch_size, accumulation = _batches(asked, gpus)
    auto = asked.auto_lengths
    lengths = {
        "query": "auto" if auto or asked.query_length is None else asked.query_length,
        "document": "auto" if auto or asked.document_length is None else asked.document_length,
        "percentile": asked.length_percentile,
        "sample": asked.length_sample,
    }
    spec: dict[str, Any] = {
        "kind": "train",
        "family": asked.family or ("late_interaction" if asked.prune_embeddings else "dense"),
        "base_model": asked.base_model,
        "dataset": asked.dataset_path,
        "epochs": asked.epochs,
        "learning_rate": asked.lr,
        "batch_size": batch_size,
        "gradient_accumulation_steps": accumulation,
        "lengths": lengths,
        "precision": _precision(asked),
        "gradient_checkpointing": asked.grad_checkpoint,
        "logging_steps": 1 if asked.action == "smoke_steps" else asked.logging_steps,
        "max_steps": _SMOKE_STEPS
        if asked.max_steps is None and asked.action == "smoke_steps"
        else asked.max_steps,
        "warmup_ratio": asked.warmup_ratio,
        "weight_decay": asked.weight_decay,
        "compile": asked.compile,
        "quantization": asked.quantization,
        "sharding": "fsdp" if asked.fsdp else "none",
        "offload": asked.offload,
        "prompts": {"query": asked.prompt_query, "document": asked.prompt_document},
        "remine": {} if asked.remine else None,
        "mine": {"model": asked.mining_model} if asked.mining_model else None,
        "checkpoint": {"every_steps": asked.save_steps},
        "optimizer": "adamw_8bit" if asked.optimizer_8bit else "adamw",
        "freeze_base": asked.freeze_base,
        "train_last_n": asked.train_last_n,
        "dry_run": asked.dry_run,
        "sample": asked.sample_size or (1000 if asked.sample else None),
        "seed": asked.seed,
        "evaluation": {"holdout": asked.eval_holdout or None},
        "resources": {"gpus": gpus},
        "loss": {},
    }
    if asked.cpu:
        spec["device"] = "cpu"
    if asked.temperature is not None:
        spec["loss"]["temperature"] = asked.temperature
    if asked.num_workers is not None:
        spec["data_loader_workers"] = asked.num_workers
    if asked.mini_batch_size is not None:
        spec["micro_batch_size"] = asked.mini_batch_size
        spec["loss"]["cached"] = True
    if asked.prune_tokens:
        spec["prune_tokens"] = {
            "strategy": asked.prune_strategy,
            "keep_ratio": asked.prune_keep_ratio,
            "min_tokens": asked.prune_min_tokens,
            "seed": asked.prune_seed,
        }
    if asked.prune_embeddings:
        spec["prune_embeddings"] = {
            "strategy": asked.embedding_prune_strategy,
            "pool_factor": asked.pool_factor,
            "keep_ratio": asked.embedding_keep_ratio,
            "protected_tokens": asked.protected_tokens,
        }
    if asked.lora:
        targets = asked.lora_target_modules
        spec["lora"] = {
            "r": asked.lora_r,
            "alpha": asked.lora_alpha,
            "dropout": asked.lora_dropout,
            "target_modules": "auto" if targets in (None, "auto") else targets.split(","),
        }
    return localize(spec)


def _check_flags(asked: argparse.Namespace) -> None:
    """Raises `InvalidRequest` for flags that do not go together, and for a dataset that is not there."""
    for switch, needs in _SWITCHES.items():
        given = [name for name in needs if getattr(asked, name) != _parser().get_default(name)]
        if given and not getattr(asked, switch):
            message = f"has no effect without --{switch}: add it"
            raise InvalidRequest(f"--{given[0]} {message}", [Problem(given[0], message)])
    if not Path(asked.dataset_path).exists():
        message = f"file or folder not found: {asked.dataset_path}"
        raise InvalidRequest(f"--dataset_path: {message}", [Problem("dataset_path", message)])
    if asked.bf16 and asked.fp16:
        raise InvalidRequest("--bf16 and --fp16 exclude each other", [Problem("fp16", "excludes bf16")])
    if asked.cpu and asked.gpus:
        message = "excludes --gpus; use --processes to train with several processes on the CPU"
        raise InvalidRequest(f"--cpu {message}", [Problem("cpu", message)])


def _batches(asked: argparse.Namespace, gpus: int | str) -> tuple[int, int]:
    """Pairs a batch and batches an update. Raises `InvalidRequest`.

    Without gathering, each GPU or process ranks its own share of a batch: that is, smaller batches whose
    gradients are averaged.
    """
    batch_size, accumulation = asked.batch_size, asked.grad_accum_steps
    sharing = gpus if isinstance(gpus, int) and gpus else asked.processes or 1
    if asked.gather or sharing < 2:
        return batch_size, accumulation
    if batch_size % sharing or batch_size // sharing < 2:
        message = f"--no-gather: batch_size {batch_size} cannot be divided into {sharing} parts of 2 or more"
        raise InvalidRequest(message, [Problem("batch_size", message)])
    return batch_size // sharing, accumulation * sharing


def _holds_a_dry_run(out: Path) -> bool:
    try:
        return bool(json.loads((out / REQUEST).read_bytes())["spec"]["dry_run"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _precision(asked: argparse.Namespace) -> str:
    if asked.fp16:
        return "fp16"
    return "auto" if asked.bf16 is None else "bf16" if asked.bf16 else "fp32"


def _finalize(out: Path) -> None:
    """``final/`` beside the job's own name for its model; a copy where the file system has no links."""
    final = out / "final"
    if final.exists():
        return
    try:
        final.symlink_to("model", target_is_directory=True)
    except OSError:
        shutil.copytree(out / "model", final)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="reason-train",
        description="Fine-tune an embedding model. Ctrl-C saves a checkpoint; the same command resumes.",
        epilog="example: reason-train --dataset_path data/pairs.jsonl --auto_lengths --sample "
        "--sample_size 2048 --batch_size 64",
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--dataset_path",
        default="data/prepared_reasonir_hq",
        help="pairs file, prepared dataset, or BEIR folder",
    )
    add("--base_model", default="Qwen/Qwen3-Embedding-0.6B", help="hub name or folder")
    actions = ("train", "smoke_steps")
    add(
        "--action", choices=actions, default="train", help=f"smoke_steps: {_SMOKE_STEPS} updates, each logged"
    )
    by_pruning = "default: dense; with --prune_embeddings late_interaction"
    add_field(parser, "--family", TrainSpec, "family", default=None, help=by_pruning)
    add("--output_dir", help="default: data/output/<model>/<run>")
    add("--run_name", help="default: <model>-<dataset>")
    add_field(parser, "--epochs", TrainSpec, "epochs")
    add_field(parser, "--lr", TrainSpec, "learning_rate", default=1e-5)
    add("--max_steps", type=int, help="stop after this many updates; overrides --epochs")
    add_field(parser, "--warmup_ratio", TrainSpec, "warmup_ratio")
    add_field(parser, "--weight_decay", TrainSpec, "weight_decay")
    add("--temperature", type=float, help="similarities are divided by it; default: depends on the family")
    add_field(parser, "--batch_size", TrainSpec, "batch_size")
    add("--mini_batch_size", type=int, help="number of texts encoded at once; the loss is then cached")
    add("--prompt_query", help="text before every query; default: the model's own; '' for none")
    add("--prompt_document", help="text before every document; default: the model's own; '' for none")
    add("--mining_model", help="mine negatives once before the first step, with this model on the CPU")
    add("--remine", action="store_true", help="mine negatives in each epoch, with the current weights")
    add("--document_length", type=int, help="in tokens; default: determined from the data")
    add("--query_length", type=int, help="in tokens; default: determined from the data")
    add(
        "--auto_lengths",
        action="store_true",
        help="determine both lengths from the data; overrides the two flags above",
    )
    add_field(parser, "--length_percentile", Lengths, "percentile")
    add("--length_sample", type=int, help="number of texts of each role to measure; default: all")
    add_field(parser, "--save_steps", Checkpointing, "every_steps")
    add_field(parser, "--logging_steps", TrainSpec, "logging_steps")
    add("--num_workers", type=int, help="data loader processes")
    add("--bf16", action=argparse.BooleanOptionalAction, help="default: if the GPU supports it")
    add("--fp16", action="store_true")
    add("--compile", action="store_true", help="torch.compile the model")
    add("--quantization", choices=("int8", "int4"), help="load the frozen base with fewer bits; needs --lora")
    add("--cpu", action="store_true", help="use no GPU")
    add("--gpus", type=int, help="number of GPUs that share every batch; default: one, if there is any")
    add("--processes", type=int, help="number of CPU processes that share every batch; default: 1")
    add("--fsdp", action="store_true", help="shard the model over the GPUs, or over --processes")
    add("--offload", action="store_true", help="with --fsdp: keep weights and optimizer state in main memory")
    add_field(parser, "--grad_accum_steps", TrainSpec, "gradient_accumulation_steps")
    add("--grad_checkpoint", action="store_true")
    add(
        "--gather",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="several GPUs: rank against the documents of all GPUs; --no-gather: only of the GPU's own share",
    )
    add("--lora", "--use_lora", action="store_true")
    add_field(parser, "--lora_r", LoRA, "r")
    add_field(parser, "--lora_alpha", LoRA, "alpha")
    add_field(parser, "--lora_dropout", LoRA, "dropout")
    add(
        "--lora_target_modules",
        help="names of linear layers, separated by commas; default: those of the attention",
    )
    add("--optimizer_8bit", action="store_true")
    add("--freeze_base", action="store_true")
    add("--train_last_n", type=int, help="train only this many of the last layers")
    add("--dry_run", action="store_true", help="report lengths, steps and memory, without training")
    add("--sample", action="store_true", help="train on 1,000 rows, or --sample_size")
    add("--sample_size", type=int, help="train on this many rows")
    add(
        "--eval_holdout",
        type=float,
        default=0.0,
        help="share of the queries to evaluate on instead of training on them",
    )
    add_field(parser, "--seed", TrainSpec, "seed")
    pruning = parser.add_argument_group("pruning")
    pruning.add_argument(
        "--prune_tokens", action="store_true", help="drop tokens of documents before the model reads them"
    )
    for name in ("strategy", "keep_ratio", "min_tokens", "seed"):
        add_field(pruning, f"--prune_{name}", PruneTokens, name)
    pruning.add_argument(
        "--prune_embeddings", action="store_true", help="keep fewer vectors of documents (late interaction)"
    )
    add_field(pruning, "--embedding_prune_strategy", PruneEmbeddings, "strategy")
    add_field(pruning, "--pool_factor", PruneEmbeddings, "pool_factor")
    add_field(pruning, "--embedding_keep_ratio", PruneEmbeddings, "keep_ratio")
    add_field(pruning, "--protected_tokens", PruneEmbeddings, "protected_tokens")
    add_output_flags(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
