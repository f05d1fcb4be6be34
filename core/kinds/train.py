"""A training job, from its spec to a published model."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch

from core.engine.inference import NotFinite
from core.engine.models.loading import transformer_of
from core.engine.ranks import Ranks, open_ranks
from core.engine.sharding import is_sharded, shard_model
from core.engine.tokens import Frame
from core.errors import Diverged, OutOfMemory
from core.families.collator import Collator
from core.mining.mine_rows import mine_rows
from core.models.memory import may_hold
from core.runtime.context import RunContext
from core.spec.parts.models import format_length
from core.spec.train import TrainSpec
from core.training.adapters import layers_of
from core.training.arguments import choose_trackers, first_free_batch, training_arguments
from core.training.callbacks import Decide, Evaluate, Mine, Report, Save, Throughput
from core.training.checkpoints.checkpoint import Checkpoints, Scores, TrainingState
from core.training.checkpoints.remote_copies import Copies
from core.training.checkpoints.resuming import check_resumable
from core.training.checkpoints.weights import WeightsPublisher
from core.training.judging import compare_with_base, evaluate, flatten, make_judge
from core.training.merging import check_merge, finish_merge, keep_base
from core.training.negatives.mined_dataset import mined_folder
from core.training.negatives.remining import Remining
from core.training.prepare import Prepared, prepare
from core.training.recovery import AGAINST_DIVERGENCE, Limits
from core.training.reporting.diagnosis import explain_out_of_memory
from core.training.reporting.dry_run import publish_estimate
from core.training.reporting.publishing import gather_facts, publish_training
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
    with ExitStack() as at_the_end:
        at_the_end.callback(checkpoints.close)  # a job that stops leaves its copy whole
        _train_from(checkpoints, spec, context, ranks, begun, at_the_end)


def _train_from(
    checkpoints: Checkpoints,
    spec: TrainSpec,
    context: RunContext,
    ranks: Ranks,
    begun: list[tuple[Prepared, PairTrainer]],
    at_the_end: ExitStack,
) -> None:
    """``begun`` gets what is trained, for whoever explains why it ended; ``at_the_end`` what must be waited
    for."""
    resume_from = ranks.broadcast_from_rank0(checkpoints.latest)
    state = checkpoints.state(resume_from) if resume_from else TrainingState()
    prepared = prepare(spec, context, ranks, mine_rows)
    if spec.dry_run:
        if ranks.first:
            publish_estimate(spec, context, prepared)
        return
    check_merge(spec, prepared)
    if ranks.first:
        check_resumable(context, state.depends_on, prepared.depends_on)
    state.depends_on = prepared.depends_on
    if spec.sharding == "fsdp":
        _shard(spec, context, ranks, prepared)
    throughput = Throughput()
    remining = Remining(spec, context, ranks, prepared, state) if spec.remine else None
    weights = None
    if ranks.first and context.library is not None:
        weights = WeightsPublisher(
            spec,
            context,
            checkpoints,
            base_model_sha256=prepared.depends_on["base model"],
            lengths=prepared.lengths.limits,
        )
        at_the_end.callback(weights.wait)
    trainer, evaluation = build_trainer(
        spec, context, ranks, prepared, checkpoints, state, throughput, remining, weights
    )
    if not state.evaluations and spec.evaluation.baseline and prepared.rows.evaluated:
        context.phase("evaluating")
        evaluation.evaluate_now(0)  # in the base's own lengths
    settle_saved_lengths(spec, context, prepared)
    base = keep_base(trainer, checkpoints) if spec.merge is not None else None
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
    ranks.broadcast_from_rank0(
        lambda: finish(spec, context, ranks, prepared, trainer, state, checkpoints, base)
    )


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
    weights: WeightsPublisher | None,
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
            Save(
                context, state, throughput, decided, checkpoints, spec.checkpoint, weights, owner=ranks.first
            )
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


def evaluate_last(
    context: RunContext, trainer: PairTrainer, evaluation: Evaluate, state: TrainingState
) -> None:
    """Evaluates the trained model, unless early stopping has just looked."""
    step = trainer.state.global_step
    if not state.evaluations or state.evaluations[-1].step != step:
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
    base: Path | None,
) -> None:
    """Takes the best weights back where others came after them, merges them with the ``base`` model's where
    the spec asks for it, and publishes model and report."""
    if state.best_step is not None and state.best_step != trainer.state.global_step:
        trainer.load_weights(checkpoints.best)
        context.notice(f"The best weights, those of step {state.best_step}, are kept.")
    if base is not None:
        judge = make_judge(spec, context, prepared)
        finish_merge(spec, context, prepared, trainer, state, base, judge)
    context.phase("publishing")
    compared = compare_with_base(spec, state)
    facts = gather_facts(spec, context, prepared, trainer, state, compared)
    context.metrics = {"baseline": facts.baseline, "finetuned": facts.finetuned}
    if compared:
        context.metrics["verdicts"] = {item.dataset: item.verdict for item in compared}
        for item in compared:
            context.notice(f"{item.dataset}: {item.verdict}")
    publish_training(spec, context, ranks, prepared, trainer, state, checkpoints, facts)


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
