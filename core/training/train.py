"""A training job, from its spec to a published model."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import set_seed

from core.artifacts import sha256_of
from core.data.beir import RetrievalSet
from core.data.pairs import read_pairs
from core.data.retrieval import read_retrieval
from core.data.table import Written, open_table, write_table
from core.errors import BadData, BadSpec, OutOfMemory
from core.evaluation.retrieval import evaluate_retrieval
from core.families import dense
from core.run.context import RunContext
from core.spec.train import DatasetSource, TrainSpec
from core.training.arguments import choose_precision, training_arguments
from core.training.batching import TrainingBatches, row_keys
from core.training.callbacks import Evaluate, Report, Save, Scores, Throughput
from core.training.checkpoint import Checkpoints, TrainingState
from core.training.curves import TensorBoard
from core.training.lengths import ChosenLengths, choose_lengths
from core.training.memory import activation_bytes
from core.training.report import write_model_card, write_report
from core.training.trainer import PairTable, PairTrainer

_MICRO_BATCH_TOKENS = {"cpu": 1024, "cuda": 16_384}
"""On a CPU small micro-batches stay in its caches; a GPU wants large ones."""

_BEST = "best.safetensors"


@dataclass
class Prepared:
    """Everything that is settled before the first step."""

    model: Any
    base_model_sha256: str
    table: Any
    rows_sha256: str
    written: Written
    lengths: ChosenLengths
    batches: TrainingBatches
    evaluation_sets: dict[str, RetrievalSet]
    device: str
    precision: str
    token_budget: int
    cached: bool
    steps: int


def train(spec: TrainSpec, context: RunContext) -> None:
    """Load, prepare, evaluate the base model, train, evaluate, publish.

    Goes on from the job's last whole checkpoint when there is one. Raises `Stopped` when asked to stop,
    after saving a checkpoint, and a `JobFailure` for what the user can mend.
    """
    checkpoints = Checkpoints(context.request.checkpoints, context.request.attempt, spec.checkpoint.keep)
    resume_from = checkpoints.latest()
    state = checkpoints.state(resume_from) if resume_from else TrainingState()
    try:
        prepared = prepare(spec, context)
        throughput = Throughput()
        trainer, evaluation = build_trainer(spec, context, prepared, checkpoints, state, throughput)
        if not state.evaluations and spec.evaluation.baseline and prepared.evaluation_sets:
            context.phase("evaluating")
            evaluation.consider(0, evaluate(spec, context, prepared, step=0))
        context.phase("training")
        if resume_from:
            context.notice(f"Going on from {resume_from.name} of an earlier attempt.")
        trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
        context.check_stop()
        finish(spec, context, prepared, trainer, evaluation, state, checkpoints)
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(
            "The GPU ran out of memory. Lower micro_batch_tokens with loss.cached true, use shorter lengths "
            f"or gradient_checkpointing. ({str(error).partition('.')[0]})"
        ) from error


def prepare(spec: TrainSpec, context: RunContext) -> Prepared:
    """The model, the rows as a table on disk, the lengths, the order of batches, the evaluation sets."""
    device = "cuda" if context.request.gpus else "cpu"
    precision = choose_precision(spec.precision, device)
    set_seed(spec.seed)
    context.phase("loading")
    model = dense.load_model(context, spec.base_model, device)
    context.check_stop()

    context.phase("preparing")
    work = context.folder / "work"
    work.mkdir(exist_ok=True)
    written = write_table(
        read_pairs(_path(context, spec.dataset), spec.dataset.split),
        work / "rows.arrow",
        work / "rejects.jsonl",
        spec.max_reject_share,
        context.check_stop,
    )
    if written.rejects:
        first = written.examples[0]
        context.notice(
            f"{written.rejects} rows cannot be used and were left out; the first: {first.file}, line "
            f"{first.line}: {first.reason}. All of them are in the report's rejects.jsonl.",
            "warning",
        )
    table = open_table(work / "rows.arrow")
    if spec.sample is not None and spec.sample < table.num_rows:
        generator = torch.Generator().manual_seed(spec.seed)
        chosen = torch.randperm(table.num_rows, generator=generator)[: spec.sample].sort().values
        table = table.take(chosen.numpy())
    context_length = dense.context_length(model)
    lengths = choose_lengths(
        spec.lengths,
        spec.prompts,
        model.tokenizer,
        table,
        configured=model.max_seq_length or context_length,
        context=context_length,
        seed=spec.seed,
    )
    context.notice(
        f"Lengths: queries {lengths.query.max_length} tokens ({lengths.query.share_cut:.1%} cut), documents "
        f"{lengths.document.max_length} ({lengths.document.share_cut:.1%} cut)."
    )
    if lengths.document.max_length > (model.max_seq_length or 0):
        model.max_seq_length = max(lengths.document.max_length, lengths.query.max_length)
    batches = TrainingBatches(row_keys(table), spec.batch_size, spec.seed, spec.epochs)
    if batches.total == 0:
        raise BadData(
            "No batch can be made: a single pair without negatives has nothing to be told apart from."
        )
    steps = -(-batches.total // spec.gradient_accumulation_steps)
    if spec.max_steps is not None:
        steps = spec.max_steps
    batches.limit(steps * spec.gradient_accumulation_steps)
    token_budget = (
        _MICRO_BATCH_TOKENS[device] if spec.micro_batch_tokens == "auto" else spec.micro_batch_tokens
    )
    cached = _use_cache(spec, model, lengths, table, device, precision)
    if cached and spec.loss.cached == "auto":
        context.notice(
            "The batch does not fit in memory: its loss is computed in micro-batches (gradient caching)."
        )
    return Prepared(
        model=model,
        base_model_sha256=dense.weights_sha256(model),
        table=table,
        rows_sha256=sha256_of(work / "rows.arrow"),
        written=written,
        lengths=lengths,
        batches=batches,
        evaluation_sets=_evaluation_sets(spec, context),
        device=device,
        precision=precision,
        token_budget=token_budget,
        cached=cached,
        steps=steps,
    )


def build_trainer(
    spec: TrainSpec,
    context: RunContext,
    prepared: Prepared,
    checkpoints: Checkpoints,
    state: TrainingState,
    throughput: Throughput,
) -> tuple[PairTrainer, Evaluate]:
    """The trainer with everything that happens between its steps, in that order."""
    collator = dense.PairCollator(
        prepared.model.tokenizer,
        query_length=prepared.lengths.query.max_length,
        document_length=prepared.lengths.document.max_length,
        token_budget=prepared.token_budget,
        prompts=spec.prompts,
    )
    loss = dense.MultipleNegativesRanking(
        spec.loss.temperature,
        symmetric=spec.loss.symmetric,
        cosine=prepared.model.similarity_fn_name != "dot",
    )
    evaluation = Evaluate(
        context,
        state,
        throughput,
        spec.evaluation.every_steps if prepared.evaluation_sets else None,
        spec.evaluation.early_stopping,
        lambda step: evaluate(spec, context, prepared, step=step),
        lambda: _save_best(trainer, checkpoints),
    )
    trainer = PairTrainer(
        model=prepared.model,
        args=training_arguments(
            spec,
            checkpoints.attempt_folder,
            steps=prepared.steps,
            device=prepared.device,
            precision=prepared.precision,
        ),
        train_dataset=PairTable(prepared.table),
        batches=prepared.batches,
        collator=collator,
        ranking_loss=loss,
        cached=prepared.cached,
        throughput=throughput,
        callbacks=[
            Report(context, state, throughput, prepared.batches.per_epoch),
            evaluation,
            Save(context, state, throughput, checkpoints, spec.checkpoint),
            TensorBoard(checkpoints.folder / "tensorboard", state),
        ],
    )
    return trainer, evaluation


def evaluate(spec: TrainSpec, context: RunContext, prepared: Prepared, *, step: int) -> Scores:
    """Scores the model as it is now on every evaluation set, and tells."""
    encode = dense.make_encode(prepared.model, spec.prompts, prepared.token_budget, context.check_stop)
    scores: Scores = {}
    for name, dataset in prepared.evaluation_sets.items():
        scores[name] = evaluate_retrieval(encode, dataset, spec.evaluation.metrics)
    context.metric(step, flatten(scores))
    return scores


def flatten(scores: Scores) -> dict[str, float]:
    """``{"ndcg@10": ...}`` of one dataset, ``{"NAME/ndcg@10": ...}`` of several."""
    if len(scores) == 1:
        return next(iter(scores.values()))
    return {f"{name}/{metric}": value for name, values in scores.items() for metric, value in values.items()}


def finish(
    spec: TrainSpec,
    context: RunContext,
    prepared: Prepared,
    trainer: PairTrainer,
    evaluation: Evaluate,
    state: TrainingState,
    checkpoints: Checkpoints,
) -> None:
    """Evaluates the trained model, or takes the best one back, and publishes model and report."""
    if prepared.evaluation_sets:
        context.phase("evaluating")
        step = trainer.state.global_step
        evaluation.consider(step, evaluate(spec, context, prepared, step=step))
        if state.best_step is not None and state.best_step != step:
            trainer.load_weights(checkpoints.folder / _BEST)
            context.notice(f"The best weights, those of step {state.best_step}, are kept.")
    context.phase("publishing")
    final = next(
        (entry["scores"] for entry in state.evaluations if entry["step"] == state.best_step),
        state.evaluations[-1]["scores"] if state.evaluations else {},
    )
    baseline = next((entry["scores"] for entry in state.evaluations if entry["step"] == 0), {})
    if not spec.evaluation.baseline:
        baseline = {}
    context.metrics = {"baseline": baseline, "finetuned": final}
    facts = {
        "base_model": spec.base_model,
        "dataset": spec.dataset.ref,
        "inputs": context.request.inputs,
        "base_model_sha256": prepared.base_model_sha256,
        "rows_sha256": prepared.rows_sha256,
        "steps": trainer.state.global_step,
        "rows": prepared.table.num_rows,
        "rejects": prepared.written.rejects,
        "lengths": prepared.lengths.as_dict(),
        "precision": prepared.precision,
        "device": prepared.device,
        "cached": prepared.cached,
        "tokens": state.tokens_seen,
        "training_seconds": round(state.training_seconds, 2),
        "baseline": baseline,
        "finetuned": final,
        "best_step": state.best_step,
    }
    work = context.folder / "work"
    model_folder = _fresh(work / "model")
    dense.save_model(prepared.model, model_folder)
    write_model_card(model_folder / "README.md", spec, facts)
    context.publish("model", "model", model_folder, facts)
    report_folder = _fresh(work / "report")
    write_report(report_folder, spec, facts, state.evaluations, trainer.state.log_history)
    if (rejects := work / "rejects.jsonl").exists():
        shutil.copy(rejects, report_folder)
    shutil.copytree(checkpoints.folder / "tensorboard", report_folder / "tensorboard")
    context.publish("report", "report", report_folder, {"name": "training report"})
    shutil.rmtree(work)


def _save_best(trainer: PairTrainer, checkpoints: Checkpoints) -> None:
    temporary = checkpoints.folder / f".{_BEST}"
    trainer.save_weights(temporary)
    temporary.replace(checkpoints.folder / _BEST)


def _evaluation_sets(spec: TrainSpec, context: RunContext) -> dict[str, RetrievalSet]:
    sets: dict[str, RetrievalSet] = {}
    for source in spec.evaluation.datasets:
        path = _path(context, source)
        name = source.name or path.name.split(".")[0]
        if name in sets:
            name = f"{name}-{len(sets) + 1}"
        sets[name] = read_retrieval(path, source.split)
        if not sets[name].queries:
            raise BadData(f"{source.ref}: there is nothing to evaluate on")
        context.check_stop()
    return sets


def _path(context: RunContext, source: DatasetSource) -> Path:
    path = context.resolve(source.ref)
    if not isinstance(path, Path):
        raise BadSpec(f"{source.ref} is not a dataset in files")
    if not path.exists():
        raise BadData(f"{source.ref}: there is no such file or folder")
    return path


def _use_cache(
    spec: TrainSpec, model: Any, lengths: ChosenLengths, table: Any, device: str, precision: str
) -> bool:
    """Whether the loss goes micro-batch by micro-batch: as asked, or when the whole batch would not fit."""
    if spec.loss.cached != "auto":
        return spec.loss.cached
    config = model[0].auto_model.config
    sampled = table.slice(0, 1000).column("negatives").to_pylist()
    negatives = sum(len(row) for row in sampled) / max(len(sampled), 1)
    length = max(lengths.query.max_length, lengths.document.max_length)
    needed = activation_bytes(
        tokens=int(
            spec.batch_size * (lengths.query.max_length + (1 + negatives) * lengths.document.max_length)
        ),
        length=length,
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        heads=config.num_attention_heads,
        bytes_per_number=4 if precision == "fp32" else 2,
    )
    if spec.gradient_checkpointing:
        needed //= config.num_hidden_layers
    free = torch.cuda.mem_get_info()[0] if device == "cuda" else psutil.virtual_memory().available
    return needed > 0.6 * free


def _fresh(folder: Path) -> Path:
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    return folder
