"""The model to use after a comparison, as an output of its own."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.artifacts import MANIFEST, fresh_folder
from core.evaluation.results import Evaluated
from core.jobs.protocol import PROMOTED, ArtifactInput
from core.ranking.comparison import ALL, FEWEST, Compared
from core.runtime.context import RunContext
from core.spec.evaluate import EvaluateSpec
from core.spec.parts.options import Promote

CHOSEN = "chosen.json"
"""In the folder of a model that was chosen: from which, and by what."""


def choose_best(found: Evaluated, leading: Sequence[Compared], promote: Promote | None = None) -> str:
    """The name of the model with the largest significant gain over the baseline; without one, the baseline,
    or with ``if_not_worse`` the first model if it is not significantly worse.

    ``leading``: the comparisons by the metric that decides. Of several datasets, the mean over them counts.
    """
    several = any(item.dataset == ALL for item in leading)
    deciding = [item for item in leading if item.dataset == ALL or not several]
    if better := [item for item in deciding if item.outcome == "better"]:
        return max(better, key=lambda item: abs(item.comparison.difference)).model
    first, *_, baseline = found.models
    equal = any(
        item.model == first and item.outcome != "worse" and item.comparison.queries >= FEWEST
        for item in deciding
    )
    return first if promote == "if_not_worse" and equal else baseline


def publish_best(
    spec: EvaluateSpec, context: RunContext, found: Evaluated, leading: Sequence[Compared]
) -> str:
    """The output ``model``: the files of the best model. Returns its name."""
    *_, baseline = found.models
    name = choose_best(found, leading, spec.promote)
    if spec.promote is not None and _is_same(spec, context, list(found.models).index(name)):
        name = baseline  # made again of the same data: there is nothing to publish
    reference = spec.models[list(found.models).index(name)].ref
    known = context.request.inputs.get(reference)
    metadata: dict[str, Any] = {}
    link = False
    if isinstance(known, ArtifactInput) and context.library is not None:
        metadata = dict(context.library.manifest(known.uri).metadata)
        metadata.pop(PROMOTED, None)  # that was said by another comparison
        link = True  # an artifact's files never change
    folder = fresh_folder(context.folder / "work" / "model")
    _copy(context.model_path(reference), folder, link=link)
    verdicts = [f"{item.model} on {item.dataset}: {item.verdict}" for item in leading]
    chosen: dict[str, Any] = {"name": name, "chosen_from": list(found.models), "verdicts": verdicts}
    if spec.promote is not None:
        chosen[PROMOTED] = name != baseline
    # In a file, which makes it an artifact of its own: equal files share one page.
    (folder / CHOSEN).write_text(json.dumps(chosen, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    context.publish("model", "model", folder, {**metadata, **chosen, "of": reference})
    context.notice(f"The output model is {name}{_why(spec, name, baseline)}.")
    return name


def _is_same(spec: EvaluateSpec, context: RunContext, index: int) -> bool:
    """Whether a model has the same files as the baseline, without what comparisons have said of them."""
    sums = []
    for asked in (spec.models[index], spec.models[-1]):
        known = context.request.inputs.get(asked.ref)
        if not isinstance(known, ArtifactInput) or context.library is None:
            return False
        files = context.library.manifest(known.uri).files
        sums.append({entry.path: entry.sha256 for entry in files if entry.path not in (CHOSEN, "README.md")})
    return sums[0] == sums[1]


def _why(spec: EvaluateSpec, name: str, baseline: str) -> str:
    if name != baseline:
        return f", which becomes {spec.name}@current" if spec.promote and spec.name else ""
    if spec.promote is None:
        return ": no other model is significantly better than it"
    return f": no other model passes {spec.promote}, so nothing is promoted"


def _copy(source: Path, folder: Path, *, link: bool) -> None:
    """Files are linked where that is safe, so that nothing is stored twice."""

    def one(name: str, target: str) -> None:
        if link:
            try:
                os.link(os.path.realpath(name), target)
                return
            except OSError:  # another file system
                pass
        shutil.copyfile(name, target)

    # What an earlier comparison has said is written anew, and never into a file that another artifact has.
    hidden = shutil.ignore_patterns(MANIFEST, CHOSEN, ".*")
    shutil.copytree(source, folder, dirs_exist_ok=True, copy_function=one, ignore=hidden)
