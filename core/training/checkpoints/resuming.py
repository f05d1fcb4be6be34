"""What a checkpoint's state depends on, and the refusal to go on where it has changed.

A resumed training replays the order of batches by number, so other rows under the same numbers would be
trained on without a word; the optimizer's state belongs to one model, one loss and one schedule.
"""

import json
from typing import Any

from pydantic import BaseModel

from core.data.retrieval_sets.judgments import RetrievalSet
from core.engine.models.identity import Identity
from core.errors import BadData, BadModel, BadSpec, JobFailure
from core.runtime.context import RunContext
from core.spec.train import IRRELEVANT, TrainSpec
from core.stack import library_versions

STATE = 1
"""Version of the training's own state: of the order of batches, of losses, of what a checkpoint holds. Raise
it with any change after which an older checkpoint would go on otherwise than it began."""

_LIBRARIES = "libraries"
_SETTINGS = "settings"

_FAILURES: dict[str, type[JobFailure]] = {"base model": BadModel, "guide": BadModel, _SETTINGS: BadSpec}


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
    found = {
        "base model": base.model_sha256,
        "base model's weights": base.weights_sha256,
        "rows": rows_sha256,
        _SETTINGS: json.dumps(_settings(spec), sort_keys=True, default=str),
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
    changed = [
        name
        for name, value in before.items()
        if name not in (_LIBRARIES, _SETTINGS) and now.get(name, value) != value
    ]
    changed += [name for name in before if name.startswith("evaluation set") and name not in now]
    if "base model" in changed and "base model's weights" in changed:
        changed.remove("base model's weights")
    fields = _changed_settings(before.get(_SETTINGS), now[_SETTINGS])
    changed += [_SETTINGS] if fields else []
    if changed:
        failure = next((_FAILURES[name] for name in changed if name in _FAILURES), BadData)
        told = [f"{name} ({', '.join(fields)})" if name == _SETTINGS else name for name in changed]
        raise failure(
            f"A checkpoint is there, and what it was made from has changed since: {', '.join(told)}. "
            "Begin anew with --overwrite (reason run, reason-train) or as a new job, or bring back what it "
            "was made from."
        )
    if before.get(_LIBRARIES, now[_LIBRARIES]) != now[_LIBRARIES]:
        old, new = json.loads(before[_LIBRARIES]), json.loads(now[_LIBRARIES])
        other = [
            f"{name} {old.get(name) or 'none'} -> {new[name]}" for name in new if old.get(name) != new[name]
        ]
        context.notice(f"The checkpoint was made with other libraries: {', '.join(other)}.", "warning")


def _changed_settings(before: str | None, now: str) -> list[str]:
    """Fields with other values than when the checkpoint was made, as ``path: old -> new``.

    A field that only one of the two versions knows counts where its value is not its default, which is what
    the other version does.
    """
    if before is None or before == now:
        return []
    if not before.startswith("{"):  # of versions that kept a hash
        return ["fields of another version of this program"]
    old, new = json.loads(before), json.loads(now)
    found = []
    for path in sorted({**old, **new}):
        was, is_now = old.get(path), new.get(path)
        if was is None or is_now is None:
            if not (was or is_now)["usual"]:
                found.append(path)
        elif was["value"] != is_now["value"]:
            found.append(f"{path}: {json.dumps(was['value'])} -> {json.dumps(is_now['value'])}")
    return found


def _settings(model: BaseModel, prefix: str = "") -> dict[str, dict[str, Any]]:
    """Every field by its path: its value, and whether it is the default.

    Without where data and models lie: their content counts, wherever it is now. What is nested has an entry
    of its own, the name of its class.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, field in type(model).model_fields.items():
        path = f"{prefix}{name}"
        if path in IRRELEVANT or name in ("ref", "base_model") or path == "loss.guide.model":
            continue
        value = getattr(model, name)
        usual = None if field.is_required() else field.get_default(call_default_factory=True)
        parts = value if isinstance(value, list) else [value]
        if any(isinstance(part, BaseModel) for part in parts):
            kinds = [type(part).__name__ for part in parts]
            found[path] = {
                "value": kinds,
                "usual": type(usual) is type(value) and not isinstance(value, list),
            }
            for number, part in enumerate(part for part in parts if isinstance(part, BaseModel)):
                below = f"{path}.{number}." if isinstance(value, list) else f"{path}."
                found |= _settings(part, below)
        else:
            found[path] = {"value": value, "usual": value == usual}
    return found
