"""An evaluate job: models and retrieval sets -> rankings, scores, comparisons, and a report."""

import hashlib
import shutil
from pathlib import Path

import numpy as np

from core.artifacts.folders import write_atomically
from core.evaluation.conclusions import publish
from core.evaluation.page import Percentiles
from core.evaluation.precisions import check_dimensions, variants
from core.evaluation.results import Evaluated, Result
from core.evaluation.sets import NamedSet, check_metrics, read_sets
from core.evaluation.systems import Candidates, DenseEntrant, Entrant, PairEntrant, Ranking, open_entrant
from core.ranking.metrics import depth_of
from core.ranking.scores import ranking_metrics, score_run, unjudged_share
from core.ranking.triplets import score_triplets
from core.runtime.context import RunContext
from core.spec.evaluate import EvaluatedModel, EvaluateSpec
from core.spec.parts.refs import free_name, short_name
from core.spec.unused import describe_unused

_MEASURED = {"metrics", "rerank", "index", "precisions", "dimensions", "rescore", "latency_queries", "seed"}
"""What of a spec decides what is measured of a model."""

_KEPT_DEPTH = 100
"""Documents of a query in a run file, also where no metric looks so deep."""


def evaluate(spec: EvaluateSpec, context: RunContext) -> None:
    """Rank, score, compare, publish. Raises `Stopped` or a `JobFailure`.

    What an earlier attempt has measured is not measured again.
    """
    context.phase("preparing")
    found = Evaluated(read_sets(spec, context))
    check_metrics(spec, found.sets, context)
    given = {id(named.dataset): named.run for named in found.sets if named.run is not None}
    candidates = Candidates(context, spec, given)
    kept = context.request.checkpoints / "measured"
    kept.mkdir(parents=True, exist_ok=True)
    names: list[str] = []
    for asked in spec.models:
        names.append(free_name(asked.name or short_name(asked.ref), names))
    for name, asked in zip(names, spec.models, strict=True):
        context.check_stop()
        entrant = open_entrant(context, spec, asked, candidates)
        found.models[name] = entrant.facts
        if isinstance(entrant, DenseEntrant):
            check_dimensions(entrant, spec)
        context.phase("evaluating")
        for named in found.sets:
            result = _evaluate_one(spec, context, asked, entrant, candidates, named, kept)
            found.results[name, named.name] = result
            if isinstance(entrant, PairEntrant) and named.name not in found.candidates:
                given_run = candidates.of(named.dataset).run
                found.candidates[named.name] = score_run(given_run, named.dataset, spec.metrics)
            _tell(context, found, name, named)
        del entrant
    context.tell_unused(_unused(spec, found))
    publish(spec, context, found)
    shutil.rmtree(kept)
    shutil.rmtree(context.folder / "work")


def _unused(spec: EvaluateSpec, found: Evaluated) -> list[str]:
    """Settings of families of which no model is."""
    families = {facts.family for facts in found.models.values()}
    rules = (
        ("rerank", "cross_encoder", "no model is a cross-encoder"),
        ("index", "late_interaction", "no model is of late interaction"),
        *((name, "dense", "no model is a bi-encoder") for name in ("compute", "precisions", "dimensions")),
    )
    missing = [(path, reason) for path, family, reason in rules if family not in families]
    return describe_unused(spec, [(path, lambda _: True, reason) for path, reason in missing])


def _evaluate_one(
    spec: EvaluateSpec,
    context: RunContext,
    asked: EvaluatedModel,
    entrant: Entrant,
    candidates: Candidates,
    named: NamedSet,
    kept: Path,
) -> Result:
    """What the model does, or what an earlier attempt of this job has seen it do."""
    measured = spec.model_dump(include=_MEASURED)
    given = candidates.key_of(named.dataset) if isinstance(entrant, PairEntrant) else None
    same = [asked, entrant.facts, entrant.key, named.sha256, given, measured]
    path = kept / f"{hashlib.sha256(repr(same).encode()).hexdigest()}.json"
    if path.exists():
        return Result.from_json(path.read_text(encoding="utf-8"))
    of_rankings = ranking_metrics(spec.metrics)
    depth = max(depth_of(of_rankings), _KEPT_DEPTH) if of_rankings else _KEPT_DEPTH
    ranking = entrant.rank(named.dataset, depth) if of_rankings else Ranking({}, 0.0)
    triplets = score_triplets(entrant.score, named.dataset, spec.metrics)
    result = Result(
        score_run(ranking.run, named.dataset, spec.metrics).with_triplets(triplets),
        ranking,
        unjudged_share(named.dataset.qrels, ranking.run, 10),
        triplets.positives,
        triplets.negatives,
    )
    if isinstance(entrant, DenseEntrant) and (spec.precisions or spec.dimensions):
        result.variants = list(variants(entrant, named.dataset, spec, context))
    if spec.latency_queries:
        result.latency = _latency(spec, context, entrant, named, depth)
    write_atomically(path, result.as_json())
    return result


def _latency(
    spec: EvaluateSpec, context: RunContext, entrant: Entrant, named: NamedSet, depth: int
) -> dict[str, Percentiles]:
    """Milliseconds a query by what was done: the middle and the 95th percentile. Empty where the corpus does
    not fit into memory."""
    ask = entrant.asker(named.dataset, depth)
    if ask is None:
        context.notice(f"{named.name} is too large to be asked query by query: no latency.", "warning")
        return {}
    texts = list(named.dataset.queries.values())
    drawn = np.random.default_rng(spec.seed).permutation(len(texts))[: spec.latency_queries]
    ask(texts[0])  # the first call pays for what is set up once
    times: dict[str, list[float]] = {}
    for number in drawn.tolist():
        context.check_stop()
        taken = ask(texts[number])
        for part, seconds in {**taken, "total": sum(taken.values())}.items():
            times.setdefault(part, []).append(1000 * seconds)
    return {
        part: Percentiles(float(np.median(some)), float(np.percentile(some, 95)))
        for part, some in times.items()
    }


def _tell(context: RunContext, found: Evaluated, model: str, named: NamedSet) -> None:
    means = found.results[model, named.name].scores.means
    prefix = f"{model}/{named.name}/" if len(found.sets) > 1 else f"{model}/"
    context.metric(0, {f"{prefix}{metric}": value for metric, value in means.items()})
