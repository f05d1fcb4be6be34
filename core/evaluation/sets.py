"""Retrieval sets to evaluate on, by the names that reports use."""

from dataclasses import dataclass
from functools import cached_property

from core.data.retrieval_sets.judgments import RetrievalSet
from core.data.sources.judged import read_judged_source, tell_remarks
from core.errors import BadData
from core.ranking.metrics import Run
from core.ranking.runs import read_run
from core.ranking.triplets import triplets_of
from core.runtime.context import RunContext
from core.spec.evaluate import EvaluateSpec
from core.spec.parts.evaluation import TRIPLET_METRICS
from core.spec.parts.refs import free_name, short_name


@dataclass
class NamedSet:
    """A retrieval set, and the candidates that were given with it."""

    name: str
    ref: str
    dataset: RetrievalSet
    run: Run | None

    @cached_property
    def sha256(self) -> str:
        """Of everything that a ranking and its scores depend on."""
        return self.dataset.sha256


def read_sets(spec: EvaluateSpec, context: RunContext) -> list[NamedSet]:
    """All of them. Raises `BadData`."""
    found: dict[str, NamedSet] = {}
    for source in spec.datasets:
        context.check_stop()
        path = context.dataset_path(source.ref)
        dataset = read_judged_source(context, source, path, source.ref, spec.max_reject_share)
        if dataset.rejects:
            context.notice(
                f"{source.ref}: {dataset.rejects} rows were left out of the evaluation.", "warning"
            )
        run = None
        if source.run:
            run = read_run(context.dataset_path(source.run), dataset, source.on_missing)
        tell_remarks(context, source.ref, dataset)
        default = short_name(source.ref) + (f"-{source.split}" if source.split else "")
        name = free_name(source.name or default, found)
        found[name] = NamedSet(name, source.ref, dataset, run)
    return list(found.values())


def check_metrics(spec: EvaluateSpec, sets: list[NamedSet], context: RunContext) -> None:
    """Raises `BadData` when triplet metrics are all that is asked for, and nothing is judged irrelevant."""
    asked = [metric for metric in spec.metrics if metric in TRIPLET_METRICS]
    without = [named.name for named in sets if not triplets_of(named.dataset)] if asked else []
    if without and len(without) == len(sets) and len(asked) == len(spec.metrics):
        raise BadData(
            f"{', '.join(asked)} need documents that were judged irrelevant (qrels with grade 0, rows with "
            "negatives), and no dataset has any"
        )
    if without:
        context.notice(
            f"{', '.join(without)}: nothing is judged irrelevant, so there is no {', '.join(asked)}.",
            "warning",
        )
