"""Comparisons, verdicts and examples from the scores of an evaluation, and its outputs."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from textwrap import shorten
from typing import TypeVar

import numpy as np

from core.artifacts import fresh_folder
from core.data.retrieval_sets.judgments import RetrievalSet
from core.evaluation.best import publish_best
from core.evaluation.page import (
    ByModel,
    CategoryScores,
    DatasetSummary,
    EvaluationPage,
    Example,
    FirstDocument,
    RelevantDocument,
)
from core.evaluation.report import make_document
from core.evaluation.results import Evaluated, Result
from core.evaluation.sets import NamedSet
from core.jobs.protocol import dump_inputs
from core.ranking.comparison import Compared, compare_models
from core.ranking.metrics import in_order
from core.ranking.runs import write_run
from core.ranking.scores import by_category
from core.reports import write_document
from core.runtime.context import RunContext
from core.runtime.reporter import finite
from core.spec.evaluate import EvaluateSpec
from core.spec.parts.evaluation import ON_A_SCALE, rises

T = TypeVar("T")

_SNIPPET = 300


def publish(spec: EvaluateSpec, context: RunContext, found: Evaluated) -> None:
    """The outputs ``report`` and ``run``, and ``model`` where the spec asks for it."""
    context.phase("comparing")
    compared = compare_all(spec, found, context)
    leading = [item for item in compared if item.metric == found.leading(spec.metrics)]
    context.phase("publishing")
    work = context.folder / "work"
    folder, runs = fresh_folder(work / "report"), fresh_folder(work / "run")
    page = _page(spec, context, found, compared)
    context.metrics = {
        "scores": page.scores,
        "mean": page.mean,
        "verdicts": {f"{item.model} on {item.dataset}": item.verdict for item in leading},
    }
    told = json.dumps(finite(page.as_dict()), indent=2, ensure_ascii=False)
    (folder / "report.json").write_text(told, encoding="utf-8")
    _write_queries(spec, found, folder / "queries.jsonl")
    write_document(make_document(spec, found, page, folder), folder)
    for item in leading:
        context.notice(f"{item.model} on {item.dataset}: {item.verdict}")
    for (model, dataset), result in found.results.items():
        if result.ranking.run:
            write_run(runs / dataset / f"{model}.trec", result.ranking.run, model)
    summary = {
        "name": spec.name or "evaluation",
        "scores": page.scores,
        "verdicts": [
            {name: getattr(item, name) for name in ("model", "dataset", "metric", "outcome", "verdict")}
            for item in leading
        ],
        "inputs": dump_inputs(context.request.inputs),
    }
    if spec.publish_best:
        summary["best"] = publish_best(spec, context, found, leading)
    context.publish("report", "report", folder, summary)
    if any(runs.iterdir()):
        context.publish("run", "run", runs, {"name": spec.name or "runs", "models": list(found.models)})


def compare_all(spec: EvaluateSpec, found: Evaluated, context: RunContext) -> list[Compared]:
    """Every model with the last one by every metric."""
    by_model = {
        model: {named.name: found.results[model, named.name].scores.by_query for named in found.sets}
        for model in found.models
    }
    *others, baseline = found.models
    return [
        compared
        for metric in spec.metrics
        for compared in compare_models(
            metric,
            {model: by_model[model] for model in others if _comparable(found, metric, model, baseline)},
            by_model[baseline],
            permutations=spec.significance.permutations,
            level=spec.significance.level,
            seed=spec.seed,
            check_stop=context.check_stop,
        )
    ]


def _comparable(found: Evaluated, metric: str, model: str, baseline: str) -> bool:
    one, other = found.models[model], found.models[baseline]
    return metric not in ON_A_SCALE or one.similarity == other.similarity


def _page(
    spec: EvaluateSpec, context: RunContext, found: Evaluated, compared: list[Compared]
) -> EvaluationPage:
    models, names = list(found.models), [named.name for named in found.sets]

    def each(read: Callable[[Result], T]) -> ByModel[T]:
        return {model: {name: read(found.results[model, name]) for name in names} for model in models}

    scores = each(lambda result: result.scores.means)
    return EvaluationPage(
        leading=found.leading(spec.metrics),
        models=found.models,
        baseline=models[-1] if len(models) > 1 else None,
        datasets={named.name: _summarize(named.ref, named.dataset) for named in found.sets},
        scores=scores,
        mean={
            model: {
                metric: float(np.mean([values[metric] for values in of_model.values() if metric in values]))
                for metric in spec.metrics
                if any(metric in values for values in of_model.values())
            }
            for model, of_model in scores.items()
        },
        categories={model: _categories(found, model) for model in models},
        candidates={name: given.means for name, given in found.candidates.items()},
        unjudged_at_10=each(lambda result: round(result.unjudged, 4)),
        comparisons=compared,
        seconds=each(lambda result: round(result.ranking.seconds, 3)),
        stored=each(lambda result: result.ranking.stored),
        precisions=each(lambda result: result.variants),
        latency_ms=each(lambda result: result.latency),
        examples={named.name: _examples(spec, found, named) for named in found.sets},
        inputs=dump_inputs(context.request.inputs),
        spec=spec.model_dump(mode="json"),
    )


def _summarize(ref: str, dataset: RetrievalSet) -> DatasetSummary:
    grades = [grade for judged in dataset.qrels.values() for grade in judged.values()]
    return DatasetSummary(
        ref=ref,
        queries=len(dataset.queries),
        documents=len(dataset.corpus),
        relevant=sum(grade > 0 for grade in grades),
        judged=len(grades),
        grades=sorted(set(grades)),
        excluded=sum(map(len, dataset.excluded.values())),
        unreadable=dataset.rejects,
        identical_ids=dataset.coincidence.as_dict() if dataset.coincidence else None,
        remarks=dataset.remarks.as_dict(),
    )


def _categories(found: Evaluated, model: str) -> dict[str, dict[str, CategoryScores]]:
    """dataset -> category -> its scores"""
    answer: dict[str, dict[str, CategoryScores]] = {}
    for named in found.sets:
        if not named.dataset.categories:
            continue
        of_dataset: dict[str, CategoryScores] = {}
        for metric, values in found.results[model, named.name].scores.by_query.items():
            for category, (value, queries) in by_category(values, named.dataset.categories).items():
                of_dataset.setdefault(category, CategoryScores(queries, {})).means[metric] = value
        answer[named.name] = of_dataset
    return answer


def _examples(spec: EvaluateSpec, found: Evaluated, named: NamedSet) -> list[Example]:
    """The queries that each model has gained and lost most on, with what stood first."""
    name, dataset = named.name, named.dataset
    *others, baseline = found.models
    metric = found.leading(spec.metrics)
    theirs = found.results[baseline, name].scores.by_query.get(metric, {})
    answer = []
    for model in others:
        ours = found.results[model, name].scores.by_query.get(metric, {})
        gains = {query: ours[query] - theirs[query] for query in ours.keys() & theirs.keys()}
        if not rises(metric):
            gains = {query: -gain for query, gain in gains.items()}
        ordered = sorted(gains, key=lambda query: (-gains[query], query))
        won = [query for query in ordered[: spec.examples] if gains[query] > 0]
        lost = [query for query in ordered[::-1][: spec.examples] if gains[query] < 0]
        for query in won + lost:
            answer.append(
                Example(
                    model=model,
                    query_id=query,
                    query=_shown(dataset.queries[query]),
                    metric=metric,
                    values={model: ours[query], baseline: theirs[query]},
                    relevant=[
                        RelevantDocument(
                            id=document, grade=grade, text=_shown(dataset.corpus.get(document, ""))
                        )
                        for document, grade in dataset.qrels[query].items()
                        if grade > 0
                    ][:2],
                    first={each: _first(found, each, name, dataset, query) for each in (model, baseline)},
                )
            )
    return answer


def _shown(text: str) -> str:
    return shorten(text, _SNIPPET, placeholder=" ...")


def _first(
    found: Evaluated, model: str, name: str, dataset: RetrievalSet, query: str
) -> FirstDocument | None:
    ranked = found.results[model, name].ranking.run.get(query)
    if not ranked:
        return None
    document = in_order(ranked)[0]
    return FirstDocument(
        id=document,
        text=_shown(dataset.corpus[document]),
        grade=dataset.qrels[query].get(document),
        score=ranked[document],
    )


def _write_queries(spec: EvaluateSpec, found: Evaluated, path: Path) -> None:
    """Every query's values by model and metric, and the document that each model has put first, a line each:
    for whoever wants to look closer."""
    with path.open("w", encoding="utf-8") as file:
        for named in found.sets:
            for query, text in named.dataset.queries.items():
                values = {
                    model: {
                        metric: of_query[query]
                        for metric, of_query in found.results[model, named.name].scores.by_query.items()
                        if query in of_query
                    }
                    for model in found.models
                }
                first = {
                    model: _first(found, model, named.name, named.dataset, query) for model in found.models
                }
                line = {
                    "dataset": named.name,
                    "query_id": query,
                    "query": text,
                    "category": named.dataset.categories.get(query),
                    "values": values,
                    "first": {model: document and asdict(document) for model, document in first.items()},
                }
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
