"""From what was found to what is taken: filters, preference, sampling, a cross-encoder's check."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from core.errors import BadData
from core.mining.answers import Alike, Answers
from core.mining.checking import Checker
from core.mining.filters import Candidates, in_turn, keep
from core.mining.finders import Found
from core.mining.gather import Gathered
from core.run.context import RunContext
from core.spec.mine import MineSpec

_QUERIES = 4096
"""Whose candidates are chosen from at once."""


@dataclass
class Mined:
    """For each query the numbers of its negatives, their scores and ranks; what took how many candidates out.

    ``written`` are the scores that the rows are given, ``of_pairs`` [rows] those of their positives.
    """

    of_pairs: np.ndarray
    negatives: list[np.ndarray] = field(default_factory=list)
    ranks: list[np.ndarray] = field(default_factory=list)
    scores: list[np.ndarray] = field(default_factory=list)
    written: list[np.ndarray] = field(default_factory=list)
    removed: Counter[str] = field(default_factory=Counter)
    checked: dict[str, Any] | None = None
    teacher: str | None = None  # whose scores are written, if not the search's


def choose_negatives(
    spec: MineSpec,
    context: RunContext,
    gathered: Gathered,
    answers: Answers,
    alike: Alike,
    found: Found,
) -> Mined:
    """Every query's candidates through the filters, and its negatives of those that are left."""
    check = _open_checker(spec, context, gathered)
    keeps = spec.filters.cross_encoder is not None and spec.filters.cross_encoder.keep_scores
    rows_of: dict[int, list[int]] = defaultdict(list)
    for row, query in enumerate(gathered.pairs[:, 0].tolist()):
        rows_of[query].append(row)
    prefer = _Preference(spec, gathered)
    mined = Mined(found.of_pairs.copy())
    for start in range(0, len(gathered.queries), _QUERIES):
        context.check_stop()
        queries = range(start, min(start + _QUERIES, len(gathered.queries)))
        left = [
            keep(
                found.documents[query],
                found.scores[query],
                answers.among(query, found.documents[query]),
                found.of_pairs[rows_of[query]].tolist(),
                spec.filters,
                mined.removed,
            )
            for query in queries
        ]
        turns = [
            in_turn(of_query, spec.sampling, (spec.seed, query), prefer(of_query, rows_of[query][0]))
            for query, of_query in zip(queries, left, strict=True)
        ]
        for index, (turn, of_query) in enumerate(zip(turns, left, strict=True)):
            repeats = alike.repeats(of_query.documents[turn])
            mined.removed["repeats another"] += int(repeats.sum())
            turns[index] = turn[~repeats]
        if check is None:
            places = [np.sort(turn[: spec.num_negatives]) for turn in turns]
            checked = None
        else:
            rows = np.concatenate([rows_of[query] for query in queries])
            of_rows = check.of_pairs(rows)
            of_positives = np.split(of_rows, np.cumsum([len(rows_of[query]) for query in queries])[:-1])
            places, checked = check.choose(
                queries,
                [some.tolist() for some in of_positives],
                left,
                turns,
                spec.num_negatives,
                mined.removed,
            )
            context.progress(
                fraction=queries.stop / len(gathered.queries),
                step=queries.stop,
                total_steps=len(gathered.queries),
            )
            if keeps:
                mined.of_pairs[rows] = of_rows
        for index, (of_query, chosen) in enumerate(zip(left, places, strict=True)):
            mined.negatives.append(of_query.documents[chosen])
            mined.scores.append(of_query.scores[chosen])
            mined.ranks.append(of_query.ranks[chosen])
            mined.written.append(checked[index] if checked is not None and keeps else mined.scores[-1])
    if check is not None:
        mined.checked = {**check.facts, "pairs": check.pairs_scored}
        mined.teacher = check.facts["model"] if keeps else None
    return mined


def _open_checker(spec: MineSpec, context: RunContext, gathered: Gathered) -> Checker | None:
    asked = spec.filters.cross_encoder
    if asked is None:
        return None
    context.phase("loading")
    check = Checker(asked, context, gathered)
    context.phase("mining")
    return check


class _Preference:
    """Which of a query's candidates come before the others. Raises `BadData` where nobody can tell."""

    def __init__(self, spec: MineSpec, gathered: Gathered) -> None:
        self._prefer, self._gathered = spec.prefer, gathered
        self._labels = gathered.documents.labels("dataset" if spec.prefer == "other_dataset" else "category")
        known = np.unique(self._labels[: gathered.candidates])
        if spec.prefer == "other_dataset" and len(known) < 2:
            raise BadData("prefer other_dataset: all documents are of one dataset (name several in corpus)")
        if spec.prefer in ("other_category", "same_category") and not (known >= 0).any():
            raise BadData(f"prefer {spec.prefer}: no document has a category (column category)")

    def __call__(self, candidates: Candidates, row: int) -> np.ndarray | None:
        """[candidates] of a query whose first row this is."""
        if self._prefer is None:
            return None
        labels = self._labels[candidates.documents]
        if self._prefer == "other_dataset":
            return labels != self._labels[self._gathered.pairs[row, 1]]
        own = self._gathered.categories[row]
        if self._prefer == "same_category":
            return (labels == own) & (own >= 0)
        return (labels != own) & (labels >= 0)
