"""A corpus among several jobs: each finds the nearest in its part, and a last one brings them together.

Exact search makes the result that of one job: the best of all is among the best of each part.
"""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from core.artifacts import fresh_folder
from core.errors import BadData
from core.mining.finders.base import Found
from core.mining.read_input import Gathered
from core.native_errors import reading_data
from core.ranking.search import Nearest, merge
from core.retrieval.system_facts import SystemFacts
from core.runtime.context import RunContext
from core.spec.mine import MineSpec

_PAGE = "candidates.json"


def fingerprint_of(gathered: Gathered, depth: int) -> str:
    """Of what was searched, and how deep."""
    said = [gathered.queries.sha256, gathered.documents.sha256, gathered.candidates, depth]
    return hashlib.sha256(gathered.pairs.tobytes() + repr(said).encode()).hexdigest()


def publish_candidates(
    spec: MineSpec, context: RunContext, gathered: Gathered, found: Found, facts: SystemFacts
) -> None:
    """What a part has found, as an output of its own."""
    assert spec.part is not None
    context.phase("publishing")
    folder = fresh_folder(context.folder / "work" / "candidates")
    for name in ("documents", "scores", "of_pairs"):
        np.save(folder / f"{name}.npy", getattr(found, name))
    page = {
        "part": spec.part.model_dump(),
        "searched": fingerprint_of(gathered, found.documents.shape[1]),
        "facts": facts.as_dict(),
    }
    (folder / _PAGE).write_text(json.dumps(page, indent=2), encoding="utf-8")
    context.publish("candidates", "candidates", folder, {"name": spec.name, **page})


class PartsFinder:
    """Reads what all parts have found."""

    def __init__(self, spec: MineSpec, context: RunContext) -> None:
        folders = [context.dataset_path(reference) for reference in spec.candidates]
        pages = [_read(folder, name) for folder, name in zip(folders, spec.candidates, strict=True)]
        self._parts = sorted(zip(pages, folders, strict=True), key=lambda part: part[0]["part"]["number"])
        numbers = [page["part"]["number"] for page, _ in self._parts]
        if numbers != list(range(1, pages[0]["part"]["of"] + 1)):
            raise BadData(f"candidates are parts {numbers} of {pages[0]['part']['of']}: all are needed")
        self.facts = replace(SystemFacts(**self._parts[0][0]["facts"]), parts=len(numbers))
        same = ("model_sha256", "max_length", "similarity", "precision")
        if len({repr([page["facts"].get(name) for name in same]) for page in pages}) > 1:
            raise BadData("candidates were found by different models")

    def find(self, gathered: Gathered, depth: int) -> Found:
        searched = fingerprint_of(gathered, depth)
        for page, _ in self._parts:
            if page["searched"] != searched:
                raise BadData(
                    f"part {page['part']['number']} has searched other data, or with other filters, than "
                    "this job says: run all parts again"
                )
        parts = []
        for _, folder in self._parts:
            with reading_data(f"the candidates in {folder.name} are damaged"):
                parts.append(
                    Found(*(np.load(folder / f"{name}.npy") for name in ("documents", "scores", "of_pairs")))
                )
        nearest = merge([Nearest(part.documents, part.scores) for part in parts], depth)
        of_pairs = np.fmax.reduce([part.of_pairs for part in parts])
        return Found(nearest.indices, nearest.scores, of_pairs)


def _read(folder: Path, reference: str) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / _PAGE).read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise BadData(f"{reference} is not what a part of a mine job makes (no {_PAGE})") from error
