"""Settings of a spec that have no effect beside its other settings: a job names them once.

What contradicts itself is refused when the spec is read. What is only useless (a teacher's temperature for a
loss without a teacher) may come from a shared file, so it is said and not refused.
"""

from collections.abc import Callable, Sequence
from typing import Any

from pydantic import BaseModel

from core.spec.job import JobSpec
from core.spec.prepare import PrepareSpec

_Rule = tuple[str, Callable[[Any], bool], str]
"""A field by its path, when it has no effect, and why."""


def _evaluates(spec: Any) -> bool:
    return bool(spec.evaluation.datasets) or spec.evaluation.holdout is not None


def _regression_with_temperature(spec: Any) -> bool:
    usual = 0.05 if spec.family == "dense" else 1.0
    return bool(spec.loss.name == "regression" and spec.loss.temperature != usual)


_RULES: dict[str, Sequence[_Rule]] = {
    "train": (
        (
            "loss.teacher_temperature",
            lambda spec: spec.loss.name != "distillation",
            "only loss distillation uses a teacher's temperature",
        ),
        (
            "loss.temperature",
            _regression_with_temperature,
            "loss regression does not divide similarities",
        ),
        (
            "loss.in_batch_negatives",
            lambda spec: spec.loss.needs_scores,
            "a loss that learns scores uses only the rows' own documents",
        ),
        (
            "sampling_temperature",
            lambda spec: len(spec.datasets) == 1 or spec.datasets[0].weight is not None,
            "it applies only to several datasets without weights",
        ),
        ("dataset.weight", lambda spec: len(spec.datasets) == 1, "there is only one dataset"),
        ("epochs", lambda spec: spec.max_steps is not None, "max_steps decides when the training ends"),
        *(
            (
                f"lengths.{name}",
                lambda spec: "auto" not in (spec.lengths.query, spec.lengths.document),
                "both lengths are fixed",
            )
            for name in ("percentile", "sample")
        ),
        (
            "mine.block_mb",
            lambda spec: (
                spec.mine is None or spec.mine.model == "bm25" or spec.mine.index in ("faiss", "plaid")
            ),
            "only exact search computes blocks of scores",
        ),
        ("remine.across_datasets", lambda spec: len(spec.datasets) == 1, "there is only one dataset"),
        *(
            (
                f"evaluation.{name}",
                lambda spec: not _evaluates(spec),
                "evaluation has neither datasets nor holdout",
            )
            for name in ("metrics", "every_steps", "baseline", "index", "rerank")
        ),
        (
            "prune_tokens.seed",
            lambda spec: spec.prune_tokens is None or spec.prune_tokens.strategy != "random",
            "only strategy random uses a seed",
        ),
        (
            "prune_tokens.min_tokens",
            lambda spec: spec.prune_tokens is None or spec.prune_tokens.strategy == "threshold",
            "strategy threshold has no minimum length",
        ),
        *(
            (f"checkpoint.{name}", lambda spec: spec.dry_run, "a dry run saves nothing")
            for name in ("every_steps", "every_seconds", "keep")
        ),
        ("trackers", lambda spec: spec.dry_run, "a dry run reports nothing"),
        *(
            (
                f"prune_embeddings.{name}",
                lambda spec, strategy=strategy: (
                    spec.prune_embeddings is None or spec.prune_embeddings.strategy != strategy
                ),
                f"it belongs to strategy {strategy}",
            )
            for name, strategy in (("pool_factor", "hierarchical"), ("keep_ratio", "attention"))
        ),
    ),
    "mine": (
        (
            "block_mb",
            lambda spec: spec.model == "bm25" or spec.index in ("faiss", "plaid"),
            "only exact search computes blocks of scores",
        ),
    ),
    "evaluate": (
        (
            "rescore",
            lambda spec: "binary" not in spec.precisions,
            "only precision binary is scored a second time",
        ),
        *(
            (f"significance.{name}", lambda spec: len(spec.models) == 1, "there is only one model")
            for name in ("permutations", "level")
        ),
        ("examples", lambda spec: len(spec.models) == 1, "there is only one model"),
        ("promote", lambda spec: spec.name is None, "without a name nothing becomes a version of it"),
    ),
    "embed": (
        ("calibration", lambda spec: spec.precision != "int8", "only precision int8 is calibrated"),
        ("split", lambda spec: spec.corpus is None, "texts have no split"),
        ("max_reject_share", lambda spec: spec.corpus is None, "texts cannot be unreadable"),
    ),
    "prepare": (),
    "export": (),
}


def unused_settings(spec: JobSpec) -> list[str]:
    """The settings that differ from their defaults and have no effect, each with the reason."""
    return describe_unused(spec, _RULES[spec.kind])  # type: ignore[attr-defined]


def unused_in_preparation(spec: PrepareSpec, task: str, *, documents: bool, judged: bool) -> list[str]:
    """The same of a prepare job, which knows what its sources are only once it has opened them."""
    rules: list[_Rule] = []

    def useless(paths: str, reason: str) -> None:
        rules.extend((path, lambda _: True, reason) for path in paths.split())

    if not documents:
        useless("purpose chunking queries negatives", "no source contains documents")
    elif task == "chunks":
        useless("dedup sample split balance negatives queries", "task chunks makes only passages")
    elif spec.queries.real is not None:
        of_real = "queries.of queries.per_passage queries.hide queries.llm queries.filters negatives"
        useless(of_real, "queries.real judges, and no query is made")
    elif task == "retrieval":
        useless("negatives", "a retrieval set has judgments instead of negatives")
        if spec.queries.filters.cross_encoder is not None:
            kept = "queries.filters.cross_encoder.keep_scores"
            useless(kept, "a retrieval set has no scores: a mine job has filters.cross_encoder.keep_scores")
    if judged:
        useless("cleaning dedup sample balance split.by seed", "a judged set is not changed")
    return describe_unused(spec, rules)


def describe_unused(spec: BaseModel, rules: Sequence[_Rule]) -> list[str]:
    """The fields of some rules that differ from their defaults and have no effect."""
    return [f"{path} ({reason})" for path, useless, reason in rules if _differs(spec, path) and useless(spec)]


def _differs(spec: BaseModel, path: str) -> bool:
    """Whether a field was given another value than its default."""
    *parents, name = path.split(".")
    model: Any = spec
    for parent in parents:
        model = getattr(model, parent)
        if isinstance(model, list):
            model = model[0]
        if model is None:
            return False
    field = type(model).model_fields[name]
    return bool(getattr(model, name) != field.get_default(call_default_factory=True))
