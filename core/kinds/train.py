"""A training job, from its spec to a published model."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from core.artifacts import fresh_folder
from core.data.retrieval_sets.judgments import RetrievalSet
from core.engine.inference import NotFinite
from core.engine.models.loading import context_length, transformer_of
from core.engine.ranks import Ranks, open_ranks
from core.engine.sharding import is_sharded, shard_model, unshard_model
from core.engine.token_table import describe_tokens
from core.engine.tokens import Frame
from core.errors import Diverged, OutOfMemory
from core.evaluation.comparison import Compared, compare_models
from core.evaluation.scores import Scores as Judged
from core.evaluation.scores import judge as judge_by
from core.families.collator import Collator
from core.families.family import Use
from core.jobs.protocol import dump_inputs
from core.models.memory import may_hold, operations
from core.runtime.context import RunContext
from core.spec.parts.models import format_length
from core.spec.train import TrainSpec
from core.training.adapters import layers_of, merge
from core.training.arguments import choose_trackers, first_free_batch, training_arguments
from core.training.callbacks import Decide, Evaluate, Mine, Report, Save, Scores, Throughput
from core.training.checkpoints.checkpoint import Checkpoints, TrainingState
from core.training.checkpoints.remote_copies import Copies
from core.training.checkpoints.resuming import check_resumable
from core.training.negatives.mined_dataset import mined_folder
from core.training.negatives.remining import Remining
from core.training.prepare import Prepared, prepare
from core.training.recovery import AGAINST_DIVERGENCE, Limits
from core.training.reporting.card import write_model_card
from core.training.reporting.diagnosis import explain_out_of_memory
from core.training.reporting.dry_run import publish_estimate
from core.training.reporting.report import write_report
from core.training.reporting.tensorboard import TensorBoard
from core.training.rows import dataset_names
from core.training.trainer import DamagedCheckpoint, PairTrainer


def train(spec: TrainSpec, context: RunContext) -> None:
    """Load, prepare, evaluate the base model, train, evaluate, publish.

    Goes on from the job's last whole checkpoint when there is one. Raises `Stopped` when asked to stop,
    after saving a checkpoint, and a `JobFailure` for what the user can mend.
    """
    begun: list[tuple[Prepared, PairTrainer]] = []
    try:
        with open_ranks(context, sharded=spec.sharding == "fsdp") as ranks:
            _train(spec, context, ranks, begun)
        return
    except OutOfMemory as error:
        problem = str(error)
    except torch.OutOfMemoryError as error:
        problem = (
            "The GPU ran out of memory. Lower micro_batch_tokens with loss.cached true, use shorter lengths "
            f"or gradient_checkpointing. ({str(error).partition('.')[0]})"
        )
    # Outside of the except block: the exception holds the tensors of the failed step. And after the other
    # processes have ended: they wait for nobody who explains.
    explained = ""
    if begun and context.seat is None:
        explained = explain_out_of_memory(spec, context, *begun[0])
    raise OutOfMemory(f"{problem} {explained}".strip())


def _train(
    spec: TrainSpec, context: RunContext, ranks: Ranks, begun: list[tuple[Prepared, PairTrainer]]
) -> None:
    remote = context.remote if ranks.first else None
    checkpoints = Checkpoints(
        context.request.checkpoints,
        context.request.attempt,
        spec.checkpoint.keep,
        Copies(remote, context.request.job_id, context.notice) if remote is not None else None,
        mined_folder(context) if spec.remine is not None or spec.mine is not None else None,
        owner=ranks.first,
    )
    try:
        _train_from(checkpoints, spec, context, ranks, begun)
    finally:
        checkpoints.close()  # a job that stops leaves its copy whole


def _train_from(
    checkpoints: Checkpoints,
    spec: TrainSpec,
    context: RunContext,
    ranks: Ranks,
    begun: list[tuple[Prepared, PairTrainer]],
) -> None:
    """``begun`` gets what is trained, for whoever explains why it ended."""
    resume_from = ranks.broadcast_from_rank0(checkpoints.latest)
    state = checkpoints.state(resume_from) if resume_from else TrainingState()
    prepared = prepare(spec, context, ranks)
    if spec.dry_run:
        if ranks.first:
            publish_estimate(spec, context, prepared)
        return
    if ranks.first:
        check_resumable(context, state.depends_on, prepared.depends_on)
    state.depends_on = prepared.depends_on
    if spec.sharding == "fsdp":
        _shard(spec, context, ranks, prepared)
    throughput = Throughput()
    remining = Remining(spec, context, ranks, prepared, state) if spec.remine else None
    trainer, evaluation = build_trainer(
        spec, context, ranks, prepared, checkpoints, state, throughput, remining
    )
    if not state.evaluations and spec.evaluation.baseline and prepared.rows.evaluated:
        context.phase("evaluating")
        evaluation.evaluate_now(0)  # in the base's own lengths
    settle_saved_lengths(spec, context, prepared)
    context.phase("training")
    if resume_from:
        context.notice(f"Going on from {resume_from.name} of an earlier attempt.")
    begun.append((prepared, trainer))
    with _broken_by_training(trainer):
        try:
            trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
        except DamagedCheckpoint as error:
            checkpoints.reject(error.path)
            raise
        finally:
            if remining is not None:
                remining.close()
        context.check_stop()
        if prepared.rows.evaluated:
            evaluate_last(context, trainer, evaluation, state)
    # The others wait, and a sharded model's help.
    ranks.broadcast_from_rank0(lambda: finish(spec, context, ranks, prepared, trainer, state, checkpoints))


def _shard(spec: TrainSpec, context: RunContext, ranks: Ranks, prepared: Prepared) -> None:
    """Leave each rank its part of the model, in place."""
    size = ranks.share.size
    offload = ", which lie in main memory" if spec.offload else ""
    context.notice(f"The model is sharded (FSDP2): {size} {'parts' if size > 1 else 'part'}{offload}.")
    if size == 1 and not spec.offload:
        context.notice(
            "sharding: fsdp with one process spreads nothing: resources.gpus says how many GPUs share it.",
            "warning",
        )
    shard_model(
        prepared.model,
        layers_of(transformer_of(prepared.model)),
        ranks,
        device=prepared.device,
        precision=prepared.precision,
        offload=spec.offload,
    )


def settle_saved_lengths(spec: TrainSpec, context: RunContext, prepared: Prepared) -> None:
    """Set the model to the lengths that it is saved with, and tell where they are not the training's."""
    family, model, trained = prepared.family, prepared.model, prepared.lengths.limits
    own = family.saved_lengths(model)
    family.set_lengths(model, trained, spec.lengths)
    saved = family.saved_lengths(model)
    longest = {"query": trained["query"], "document": trained["document"], "pair": sum(trained.values())}
    if spec.family == "dense":  # one length for both
        longest = dict.fromkeys(longest, max(trained.values()))

    def said(lengths: dict[str, int]) -> str:
        return ", ".join(f"{role} {format_length(tokens)}" for role, tokens in lengths.items())

    if any(tokens > longest[role] for role, tokens in saved.items()):
        context.notice(
            f"The saved model reads more than it is trained on, as its base does: {said(saved)} tokens. "
            "lengths.saved: trained cuts there as well."
        )
    elif saved != own:
        context.notice(f"The saved model reads {said(saved)} tokens; its base reads {said(own)}.")


@contextmanager
def _broken_by_training(trainer: PairTrainer) -> Iterator[None]:
    """Raise `Diverged` where a model that is being trained gives vectors or scores that are not finite."""
    try:
        yield
    except NotFinite as error:
        step = trainer.state.global_step
        raise Diverged(f"Evaluated after step {step}: {error}. {AGAINST_DIVERGENCE}") from error


def build_trainer(
    spec: TrainSpec,
    context: RunContext,
    ranks: Ranks,
    prepared: Prepared,
    checkpoints: Checkpoints,
    state: TrainingState,
    throughput: Throughput,
    remining: Remining | None,
) -> tuple[PairTrainer, Evaluate]:
    """The trainer with everything that happens between its steps, in that order."""
    guide, guided = prepared.guide, None
    if guide is not None:
        guided = Frame.of(guide.tokenizer), guide.max_seq_length, prepared.guide_packing or prepared.packing
    collator = Collator(
        prepared.reader,
        prepared.lengths.limits,
        prepared.packing,
        guide=guided,
        share=ranks.share,
    )
    objective = prepared.family.make_objective(prepared.model, spec, guide, ranks.gather)
    if state.limits is None:
        state.limits = Limits(prepared.cached)
    limits = state.limits
    for batch, factors in state.reweighed:
        prepared.batches.reweigh(batch, factors)

    judge = make_judge(spec, context, prepared)

    def score(step: int) -> Scores:
        scores = ranks.broadcast_from_rank0(lambda: evaluate(context, prepared, judge, state, step=step))
        if spec.trackers:  # TensorBoard's curves are ours; these know the trainer's log only
            trainer.log({f"eval/{name}": value for name, value in flatten(scores).items()})
        return scores

    sharded = is_sharded(prepared.model)
    decided = Decide(
        context, spec.checkpoint.every_seconds, ranks.broadcast_from_rank0 if sharded else lambda look: look()
    )
    evaluation = Evaluate(
        context,
        state,
        throughput,
        decided,
        spec.evaluation.every_steps if prepared.rows.evaluated else None,
        spec.evaluation.early_stopping,
        score,
        lambda: _save_best(trainer, checkpoints, ranks) if ranks.saves else None,
        lambda step, name: _reweigh(spec, context, prepared, state, step, name),
    )
    callbacks = [decided, Report(context, state, throughput, prepared.batches.per_epoch), evaluation]
    if remining is not None:
        callbacks.append(Mine(throughput, decided, remining))
    if ranks.saves:
        callbacks.append(
            Save(context, state, throughput, decided, checkpoints, spec.checkpoint, owner=ranks.first)
        )
    if ranks.first:
        callbacks.append(TensorBoard(checkpoints.folder / "tensorboard", state))
    trainer = PairTrainer(
        model=prepared.model,
        args=training_arguments(
            spec,
            checkpoints.attempt_folder,
            job_id=context.request.job_id,
            steps=prepared.steps,
            device=prepared.device,
            precision=prepared.precision,
            trackers=choose_trackers(spec) if ranks.first else [],
        ),
        train_dataset=prepared.dataset,
        batches=prepared.batches,
        collator=collator,
        forward=prepared.family.make_forward(spec),
        objective=objective,
        limits=limits,
        throughput=throughput,
        tell=lambda sentence: context.notice(sentence, "warning"),
        ranks=ranks,
        held=lambda cached: may_hold(spec, cached=cached),
        callbacks=callbacks,
    )
    return trainer, evaluation


Judge = Callable[[RetrievalSet], Judged]
"""Every metric of a dataset, by the model as it is when it is asked."""


def make_judge(spec: TrainSpec, context: RunContext, prepared: Prepared) -> Judge:
    """The metrics that the spec asks for, of rankings and of triplets."""
    family, packing = prepared.family, replace(prepared.packing, width=None)
    use = Use.of(spec)
    rank = family.make_rank(prepared.model, use, packing, context)
    score = family.make_score(prepared.model, use, packing, context)
    metrics = spec.evaluation.metrics
    return lambda dataset: judge_by(rank, score, dataset, metrics)


def evaluate(
    context: RunContext, prepared: Prepared, judge: Judge, state: TrainingState, *, step: int
) -> Scores:
    """Scores the model as it is now on every evaluation set, and tells. Every query's own values are kept of
    the first evaluation, of the best so far and of this one."""
    judged = {name: judge(dataset) for name, dataset in prepared.evaluation_sets.items()}
    scores = {name: found.means for name, found in judged.items()}
    kept = {"0", str(state.best_step)}
    state.by_query = {of_step: values for of_step, values in state.by_query.items() if of_step in kept}
    state.by_query[str(step)] = {name: found.by_query for name, found in judged.items()}
    context.metric(step, flatten(scores))
    return scores


def flatten(scores: Scores) -> dict[str, float]:
    """``{"ndcg@10": ...}`` of one dataset, ``{"NAME/ndcg@10": ...}`` of several."""
    if len(scores) == 1:
        return next(iter(scores.values()))
    return {f"{name}/{metric}": value for name, values in scores.items() for metric, value in values.items()}


def evaluate_last(
    context: RunContext, trainer: PairTrainer, evaluation: Evaluate, state: TrainingState
) -> None:
    """Evaluates the trained model, unless early stopping has just looked."""
    step = trainer.state.global_step
    if not state.evaluations or state.evaluations[-1]["step"] != step:
        context.phase("evaluating")
        evaluation.evaluate_now(step)


def finish(
    spec: TrainSpec,
    context: RunContext,
    ranks: Ranks,
    prepared: Prepared,
    trainer: PairTrainer,
    state: TrainingState,
    checkpoints: Checkpoints,
) -> None:
    """Takes the best weights back where others came after them, and publishes model and report."""
    if state.best_step is not None and state.best_step != trainer.state.global_step:
        trainer.load_weights(checkpoints.best)
        context.notice(f"The best weights, those of step {state.best_step}, are kept.")
    context.phase("publishing")
    final = next(
        (entry["scores"] for entry in state.evaluations if entry["step"] == state.best_step),
        state.evaluations[-1]["scores"] if state.evaluations else {},
    )
    baseline: Scores = next((entry["scores"] for entry in state.evaluations if entry["step"] == 0), {})
    compared = _compare(spec, state, final)
    context.metrics = {"baseline": baseline, "finetuned": final}
    if compared:
        context.metrics["verdicts"] = {item.dataset: item.verdict for item in compared}
        for item in compared:
            context.notice(f"{item.dataset}: {item.verdict}")
    facts = {
        "base_model": spec.base_model,
        "dataset": ", ".join(source.ref for source in spec.datasets),
        "inputs": dump_inputs(context.request.inputs),
        "base_model_sha256": prepared.base_model_sha256,
        "rows_sha256": prepared.rows.sha256,
        "steps": trainer.state.global_step,
        "rows": len(prepared.tokens),
        "rejects": prepared.rows.rejects,
        "mining": [found.facts["mining"] for found in prepared.rows.mined],
        "licences": prepared.rows.licences,
        "lengths": prepared.lengths.as_dict(),
        "tokens_metadata": {
            **describe_tokens(prepared.tokens, prepared.model.tokenizer, context_length(prepared.model)),
            "max_length": prepared.lengths.limits,
            "padding": "fixed" if spec.pads_to_one_length else "longest of a micro-batch",
        },
        "saved_lengths": prepared.family.saved_lengths(prepared.model),
        "parameters": prepared.parameters,
        "trained_parameters": prepared.trainable,
        "precision": prepared.precision,
        "device": prepared.device,
        "processes": context.request.processes,
        "cached": trainer.limits.cached,
        "micro_batch_size": spec.micro_batch_size,
        "micro_batch_tokens": trainer.limits.tokens
        if spec.micro_batch_size
        else min(prepared.packing.token_budget, trainer.limits.tokens or prepared.packing.token_budget),
        "tokens": state.tokens_seen,
        "operations": operations(prepared.shape, state.tokens_seen),
        "training_seconds": round(state.training_seconds, 2),
        "baseline": baseline,
        "finetuned": final,
        "best_step": state.best_step,
        "evaluation_sets": {
            name: [sentence for sentence, _ in dataset.remarks.sentences()]
            for name, dataset in prepared.evaluation_sets.items()
        },
        "comparisons": [item.as_dict() for item in compared],
        "pruned_tokens": prepared.rows.pruned,
        "seconds_saved": _seconds_saved(prepared, state),
        "unpruned": _without_pruning(spec, context, prepared),
        **_reading(prepared),
    }
    work = context.folder / "work"
    if is_sharded(prepared.model):
        ranks.call_on_all_ranks(unshard_model)
    model_folder = fresh_folder(work / "model")
    if spec.lora is not None:
        merge(prepared.model)  # plain weights: they load anywhere
    prepared.family.save_model(prepared.model, model_folder)
    write_model_card(model_folder / "README.md", spec, facts)
    context.publish("model", "model", model_folder, facts)
    report_folder = fresh_folder(work / "report")
    write_report(
        report_folder,
        spec,
        facts,
        state.evaluations,
        trainer.state.log_history,
        compared,
        prepared.tokens.counts(),
    )
    if (rejects := work / "rejects.jsonl").exists():
        shutil.copy(rejects, report_folder)
    for folder in sorted(work.glob("mining-report-*")):
        shutil.copytree(folder, report_folder / folder.name)
    # Named by the job: it is what TensorBoard shows of the path.
    shutil.copytree(
        checkpoints.folder / "tensorboard", report_folder / "tensorboard" / context.request.job_id
    )
    context.publish("report", "report", report_folder, {"name": "training report"})
    shutil.rmtree(work)


def _compare(spec: TrainSpec, state: TrainingState, final: Scores) -> list[Compared]:
    """Whether the trained model is better than its base, by the metric that leads, or was lucky."""
    step = next((entry["step"] for entry in state.evaluations if entry["scores"] is final), None)
    before, after = state.by_query.get("0"), state.by_query.get(str(step))
    if before is None or after is None or step == 0:
        return []
    stopping = spec.evaluation.early_stopping
    metric = stopping.metric if stopping else spec.evaluation.metrics[0]
    return compare_models(metric, {"fine-tuned": after}, before, seed=spec.seed)


def _without_pruning(spec: TrainSpec, context: RunContext, prepared: Prepared) -> Scores | None:
    """What the trained model would have with all of its documents' vectors."""
    if spec.prune_embeddings is None or not prepared.evaluation_sets:
        return None
    context.phase("evaluating")
    whole = spec.model_copy(update={"prune_embeddings": None})
    judge = make_judge(whole, context, prepared)
    found = {name: judge(dataset).means for name, dataset in prepared.evaluation_sets.items()}
    context.phase("publishing")
    return found


def _seconds_saved(prepared: Prepared, state: TrainingState) -> float | None:
    """What the pruned tokens would have taken at the speed that was measured, without what longer texts cost
    attention beside."""
    if prepared.rows.pruned is None:
        return None
    before, after = prepared.rows.pruned
    read = after + int(prepared.tokens.counts()["query"].sum())
    return round(state.training_seconds * (before - after) / max(1, read), 2)


def _reading(prepared: Prepared) -> dict[str, Any]:
    """What the family's reader says of the documents, of up to a thousand."""
    _, documents, _ = prepared.tokens.numbers()
    some = np.unique(documents)
    some = some[:: max(1, len(some) // 1000)]
    return prepared.reader.describe(prepared.tokens.texts(some), prepared.lengths.limits)


def _save_best(trainer: PairTrainer, checkpoints: Checkpoints, ranks: Ranks) -> None:
    temporary = checkpoints.best.with_suffix(".new")
    trainer.save_weights(temporary)
    if not ranks.first:
        return
    temporary.replace(checkpoints.best)  # checkpoints that hold the former best keep it


def _reweigh(
    spec: TrainSpec, context: RunContext, prepared: Prepared, state: TrainingState, step: int, name: str
) -> None:
    """An evaluation set no longer rises: its training set, if there is one, is trained on less or no more."""
    names = dataset_names(spec)
    own = name.removesuffix("-holdout")
    stopping = spec.evaluation.early_stopping
    if stopping is None or stopping.stalled == "keep" or own not in names:
        return
    factors = list(state.reweighed[-1][1]) if state.reweighed else [1.0] * len(names)
    index = names.index(own)
    less = 0.0 if stopping.stalled == "stop" else factors[index] / 2
    if factors[index] == less or sum(factors) - factors[index] + less <= 0:
        return  # nothing changes, or nothing would be left: then early stopping ends it all
    factors[index] = less
    batch = first_free_batch(spec, prepared.device, step)
    prepared.batches.reweigh(batch, factors)
    state.reweighed.append((batch, factors))
    what = "is trained on no more" if less == 0 else "is trained on half as often"
    context.notice(f"{own} {what} after step {step}: its {stopping.metric} no longer rises.")
