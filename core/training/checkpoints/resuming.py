"""What a checkpoint's state depends on, and the refusal to go on where it has changed.

A resumed training replays the order of batches by number, so other rows under the same numbers would be
trained on without a word; the optimizer's state belongs to one model, one loss and one schedule.
"""

import json
from typing import Any

from core.data.retrieval_sets.judgments import RetrievalSet
from core.engine.identity import Identity, described_sha256
from core.errors import BadData, BadModel, BadSpec, JobFailure
from core.runtime.context import RunContext
from core.spec.train import TrainSpec
from core.stack import library_versions

STATE = 1
"""Version of the training's own state: of the order of batches, of losses, of what a checkpoint holds. Raise
it with any change after which an older checkpoint would go on otherwise than it began."""

_IRRELEVANT = {
    "kind",
    "name",
    "labels",
    "priority",
    "resources",
    "device",
    "sharding",
    "offload",
    "mine",  # by its own key
    "max_attempts",
    "timeout_seconds",
    "depends_on",
    "checkpoint",
    "logging_steps",
    "trackers",
    "data_loader_workers",
    "prefetch_batches",
    "max_reject_share",
}
"""Fields of a spec that change nothing of what is trained. Datasets and models count by their content."""

_LIBRARIES = "libraries"

_FAILURES: dict[str, type[JobFailure]] = {"base model": BadModel, "guide": BadModel, "settings": BadSpec}


def dependencies(
    spec: TrainSpec,
    *,
    base: Identity,
    guide: Identity | None,
    rows_sha256: str,
    mined: list[str],
    evaluation_sets: dict[str, RetrievalSet],
) -> dict[str, str]:
    """A hash of everything that the state of a training depends on, by what a message calls it.

    ``mined`` are the keys of negatives that were mined before the first step.
    """
    settings = spec.model_dump(mode="json", exclude=_IRRELEVANT)
    _without_references(settings)
    found = {
        "base model": base.model_sha256,
        "base model's weights": base.weights_sha256,
        "rows": rows_sha256,
        "settings": described_sha256(settings),
        "version of the training code": str(STATE),
        _LIBRARIES: json.dumps(library_versions(), sort_keys=True),
    }
    if mined:
        found["negatives mined before training"] = " ".join(mined)
    if guide is not None:
        found["guide"] = guide.model_sha256
    for name, dataset in evaluation_sets.items():
        found[f"evaluation set {name}"] = dataset.sha256
    return found


def check_resumable(context: RunContext, before: dict[str, str], now: dict[str, str]) -> None:
    """Compare what a checkpoint depends on with what there is now.

    Raises `BadData`, `BadModel` or `BadSpec` naming every difference. Other versions of libraries are a
    warning: the state stays valid, and the result may differ in its last digits.
    """
    changed = [name for name, value in before.items() if name != _LIBRARIES and now.get(name, value) != value]
    changed += [name for name in before if name.startswith("evaluation set") and name not in now]
    if "base model" in changed and "base model's weights" in changed:
        changed.remove("base model's weights")
    if changed:
        failure = next((_FAILURES[name] for name in changed if name in _FAILURES), BadData)
        raise failure(
            f"A checkpoint is there, and what it was made from has changed since: {', '.join(changed)}. "
            "Begin anew with --overwrite (reason run, reason-train) or as a new job, or bring back what it "
            "was made from."
        )
    if before.get(_LIBRARIES, now[_LIBRARIES]) != now[_LIBRARIES]:
        old, new = json.loads(before[_LIBRARIES]), json.loads(now[_LIBRARIES])
        other = [
            f"{name} {old.get(name) or 'none'} -> {new[name]}" for name in new if old.get(name) != new[name]
        ]
        context.notice(f"The checkpoint was made with other libraries: {', '.join(other)}.", "warning")


def _without_references(settings: Any) -> None:
    """Drops where data and models lie: their content counts, wherever it is now."""
    if isinstance(settings, dict):
        for name in ("ref", "base_model"):
            settings.pop(name, None)
        if isinstance(settings.get("guide"), dict):
            settings["guide"].pop("model", None)
        for value in settings.values():
            _without_references(value)
    elif isinstance(settings, list):
        for value in settings:
            _without_references(value)
