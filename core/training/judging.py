"""How good the model is while it is trained, and whether it is better than its base."""

from collections.abc import Callable
from dataclasses import replace

from core.data.retrieval_sets.judgments import RetrievalSet
from core.families.family import Use
from core.ranking.comparison import Compared, compare_models
from core.ranking.scores import Scores as Judged
from core.ranking.scores import judge as judge_by
from core.runtime.context import RunContext
from core.spec.train import TrainSpec
from core.training.checkpoints.checkpoint import Scores, TrainingState
from core.training.prepare import Prepared

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
    context: RunContext,
    prepared: Prepared,
    judge: Judge,
    state: TrainingState,
    *,
    step: int,
    prefix: str = "",
) -> Scores:
    """Scores the model as it is now on every evaluation set, and tells. Every query's own values are kept of
    the first evaluation, of the best so far and of this one. ``prefix`` is put before the metrics' names."""
    judged = {name: judge(dataset) for name, dataset in prepared.evaluation_sets.items()}
    scores = {name: found.means for name, found in judged.items()}
    kept = {"0", str(state.best_step)}
    state.by_query = {of_step: values for of_step, values in state.by_query.items() if of_step in kept}
    state.by_query[str(step)] = {name: found.by_query for name, found in judged.items()}
    context.metric(step, {prefix + name: value for name, value in flatten(scores).items()})
    return scores


def flatten(scores: Scores) -> dict[str, float]:
    """``{"ndcg@10": ...}`` of one dataset, ``{"NAME/ndcg@10": ...}`` of several."""
    if len(scores) == 1:
        return next(iter(scores.values()))
    return {f"{name}/{metric}": value for name, values in scores.items() for metric, value in values.items()}


def compare_with_base(spec: TrainSpec, state: TrainingState) -> list[Compared]:
    """Whether the trained model is better than its base, by the metric that leads, or was lucky."""
    final = state.final
    if final is None or final.step == 0:
        return []
    before, after = state.by_query.get("0"), state.by_query.get(str(final.step))
    if before is None or after is None:
        return []
    stopping = spec.evaluation.early_stopping
    metric = stopping.metric if stopping else spec.evaluation.metrics[0]
    return compare_models(metric, {"fine-tuned": after}, before, seed=spec.seed)


def score_without_pruning(spec: TrainSpec, context: RunContext, prepared: Prepared) -> Scores:
    """What the trained model would have with all of its documents' vectors."""
    whole = spec.model_copy(update={"prune_embeddings": None})
    judge = make_judge(whole, context, prepared)
    return {name: judge(dataset).means for name, dataset in prepared.evaluation_sets.items()}
