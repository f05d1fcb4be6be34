"""The outputs of a training: the model with its card, and the report."""

import shutil

import numpy as np

from core.artifacts import fresh_folder
from core.engine.models.loading import context_length
from core.engine.ranks import Ranks
from core.engine.sharding import is_sharded, unshard_model
from core.engine.token_table import describe_tokens
from core.families.family import VectorsPerDocument
from core.jobs.protocol import dump_inputs
from core.models.memory import operations
from core.ranking.comparison import Compared
from core.runtime.context import RunContext
from core.spec.train import TrainSpec
from core.training.adapters import merge
from core.training.checkpoints.checkpoint import Checkpoints, Scores, TrainingState
from core.training.judging import score_without_pruning
from core.training.prepare import Prepared
from core.training.reporting.card import write_model_card
from core.training.reporting.facts import TrainingFacts
from core.training.reporting.report import write_report
from core.training.trainer import PairTrainer


def gather_facts(
    spec: TrainSpec,
    context: RunContext,
    prepared: Prepared,
    trainer: PairTrainer,
    state: TrainingState,
    compared: list[Compared],
) -> TrainingFacts:
    """Of the model as it is now, which is the one that will be published."""
    budget, limit = prepared.packing.token_budget, trainer.limits.tokens
    tokens_metadata = {
        **describe_tokens(prepared.tokens, prepared.model.tokenizer, context_length(prepared.model)),
        "max_length": prepared.lengths.limits,
        "padding": "fixed" if spec.pads_to_one_length else "longest of a micro-batch",
    }
    return TrainingFacts(
        base_model=spec.base_model,
        dataset=", ".join(source.ref for source in spec.datasets),
        inputs=dump_inputs(context.request.inputs),
        base_model_sha256=prepared.base_model_sha256,
        rows_sha256=prepared.rows.sha256,
        steps=trainer.state.global_step,
        rows=len(prepared.tokens),
        rejects=prepared.rows.rejects,
        mining=[found.page.as_dict("mining")["mining"] for found in prepared.rows.mined],
        licences=prepared.rows.licences,
        lengths=prepared.lengths,
        tokens_metadata=tokens_metadata,
        saved_lengths=prepared.family.saved_lengths(prepared.model),
        parameters=prepared.parameters,
        trained_parameters=prepared.trainable,
        precision=prepared.precision,
        device=prepared.device,
        processes=context.request.processes,
        cached=trainer.limits.cached,
        micro_batch_size=spec.micro_batch_size,
        micro_batch_tokens=limit if spec.micro_batch_size else min(budget, limit or budget),
        tokens=state.tokens_seen,
        operations=operations(prepared.shape, state.tokens_seen),
        training_seconds=round(state.training_seconds, 2),
        baseline=state.baseline,
        finetuned=state.final.scores if state.final else {},
        best_step=state.best_step,
        evaluation_sets={
            name: [sentence for sentence, _ in dataset.remarks.sentences()]
            for name, dataset in prepared.evaluation_sets.items()
        },
        comparisons=compared,
        pruned_tokens=prepared.rows.pruned,
        seconds_saved=_seconds_saved(prepared, state),
        unpruned=_score_unpruned(spec, context, prepared),
        vectors_per_document=_count_vectors(prepared),
    )


def publish_training(
    spec: TrainSpec,
    context: RunContext,
    ranks: Ranks,
    prepared: Prepared,
    trainer: PairTrainer,
    state: TrainingState,
    checkpoints: Checkpoints,
    facts: TrainingFacts,
) -> None:
    """The outputs ``model`` and ``report``. The model cannot be trained any further afterwards."""
    work = context.folder / "work"
    if is_sharded(prepared.model):
        ranks.call_on_all_ranks(unshard_model)
    model_folder = fresh_folder(work / "model")
    if spec.lora is not None:
        merge(prepared.model)  # plain weights: they load anywhere
    prepared.family.save_model(prepared.model, model_folder)
    write_model_card(model_folder / "README.md", spec, facts)
    context.publish("model", "model", model_folder, facts.as_dict())
    report_folder = fresh_folder(work / "report")
    write_report(
        report_folder, spec, facts, state.evaluations, trainer.state.log_history, prepared.tokens.counts()
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


def _score_unpruned(spec: TrainSpec, context: RunContext, prepared: Prepared) -> Scores | None:
    if spec.prune_embeddings is None or not prepared.evaluation_sets:
        return None
    context.phase("evaluating")
    found = score_without_pruning(spec, context, prepared)
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


def _count_vectors(prepared: Prepared) -> VectorsPerDocument | None:
    """Of up to a thousand documents."""
    _, documents, _ = prepared.tokens.numbers()
    some = np.unique(documents)
    some = some[:: max(1, len(some) // 1000)]
    return prepared.reader.count_vectors(prepared.tokens.texts(some), prepared.lengths.limits)
