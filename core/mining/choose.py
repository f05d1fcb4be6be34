"""Choosing negatives among candidates: filters, preference, sampling, the check by a cross-encoder."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from core.data.dedup.alike import Alike
from core.data.io.table_files import read_batches
from core.errors import BadData
from core.mining.checking import Checker
from core.mining.finders import Found
from core.mining.known_answers import Answers
from core.mining.page import CheckedBy
from core.mining.read_input import Gathered
from core.ranking.negatives.choosing import choose_in_passes, order_candidates
from core.ranking.negatives.filters import Candidates
from core.ranking.negatives.starvation import Tally
from core.runtime.context import RunContext
from core.spec.mine import MineSpec

_QUERIES = 4096
"""Whose candidates are chosen from at once."""


@dataclass
class Mined:
    """For each query the numbers of its negatives, their scores and ranks, and which its rank alone allows;
    what took how many candidates out.

    ``written`` are the scores that the rows are given, ``of_pairs`` [rows] those of their positives. ``own``
    says of each row that keeps negatives of its own which of them, and ``own_scores`` what a teacher says of
    those.
    """

    of_pairs: np.ndarray
    negatives: list[np.ndarray]
    ranks: list[np.ndarray]
    scores: list[np.ndarray]
    written: list[np.ndarray]
    by_rank: list[np.ndarray]
    tally: Tally = field(default_factory=Tally)
    own: dict[int, list[int]] = field(default_factory=dict)
    own_scores: dict[int, list[float]] = field(default_factory=dict)
    checked: CheckedBy | None = None
    teacher: str | None = None  # whose scores are written, if not the search's

    @classmethod
    def nothing(cls, queries: int, of_pairs: np.ndarray) -> "Mined":
        """No negative for any query."""

        def empty(kind: type) -> list[np.ndarray]:
            return [np.empty(0, kind)] * queries

        return cls(
            of_pairs.copy(),
            empty(np.int64),
            empty(np.int64),
            empty(np.float32),
            empty(np.float32),
            empty(bool),
        )

    @property
    def queries_by_rank(self) -> int:
        """Queries that have negatives which their rank alone allows."""
        return sum(bool(marks.any()) for marks in self.by_rank)

    @property
    def written_by_search(self) -> bool:
        """Whether the rows' scores are those of the search: it knows none of the rows' own negatives."""
        return self.teacher is None


def choose_negatives(
    spec: MineSpec,
    context: RunContext,
    gathered: Gathered,
    answers: Answers,
    alike: Alike,
    found: Found,
) -> Mined:
    """Every query's candidates through the filters, and its negatives of those that are left."""
    chooser = _Chooser(spec, context, gathered, answers, alike, found)
    mined = chooser.mined
    mined.tally = choose_in_passes(
        chooser.choose,
        range(len(gathered.queries)),
        lambda query: len(mined.negatives[query]) < spec.num_negatives,
        spec.filters,
    )
    if spec.keep_own != "never":
        keep_own(spec, context, gathered, answers, mined, chooser.check, chooser.bars)
    for warning in mined.tally.warnings(
        spec.filters, found.of_pairs, found.scores[found.documents >= 0], mined.queries_by_rank
    ):
        context.notice(warning, "warning")
    if chooser.check is not None:
        mined.checked = chooser.check.page
    return mined


class _Chooser:
    """Chooses the negatives of queries, some thousands at a time."""

    def __init__(
        self,
        spec: MineSpec,
        context: RunContext,
        gathered: Gathered,
        answers: Answers,
        alike: Alike,
        found: Found,
    ) -> None:
        self._spec, self._context, self._gathered = spec, context, gathered
        self._answers, self._alike, self._found = answers, alike, found
        self.check = _open_checker(spec, context, gathered)
        self._prefer = _Preference(spec, gathered)
        self._rows_of: dict[int, list[int]] = defaultdict(list)
        for row, query in enumerate(gathered.pairs[:, 0].tolist()):
            self._rows_of[query].append(row)
        self.bars: dict[int, float] = {}  # of each query, where a cross-encoder checks
        self.mined = Mined.nothing(len(gathered.queries), found.of_pairs)
        asked = spec.filters.cross_encoder
        if self.check is not None and asked is not None and asked.keep_scores:
            self.mined.teacher = asked.model

    def choose(self, queries: Sequence[int], tally: Tally, *, by_rank: bool) -> None:
        """As `core.ranking.negatives.choosing.Choose`."""
        for start in range(0, len(queries), _QUERIES):
            self._context.check_stop()
            self._choose(queries[start : start + _QUERIES], tally, by_rank=by_rank)
            if self.check is not None and not by_rank:
                done = min(start + _QUERIES, len(queries))
                self._context.progress(done, len(queries))

    def _choose(self, queries: Sequence[int], tally: Tally, *, by_rank: bool) -> None:
        spec, mined = self._spec, self.mined
        left: list[Candidates] = []
        turns: list[np.ndarray] = []
        for query in queries:
            of_query, turn = self._order(query, tally, by_rank=by_rank)
            left.append(of_query)
            turns.append(turn)
        written: list[np.ndarray] | None = None
        if self.check is None:
            places = [np.sort(turn[: spec.num_negatives]) for turn in turns]
        else:
            rows = np.concatenate([self._rows_of[query] for query in queries])
            of_rows = self.check.of_pairs(rows)
            ends = np.cumsum([len(self._rows_of[query]) for query in queries])
            bars = [self.check.bar(own.tolist()) for own in np.split(of_rows, ends[:-1])]
            self.bars.update(zip(queries, bars, strict=True))
            places, scores = self.check.choose(queries, bars, left, turns, spec.num_negatives, tally)
            if not mined.written_by_search:
                mined.of_pairs[rows], written = of_rows, scores
        for index, (query, of_query, chosen) in enumerate(zip(queries, left, places, strict=True)):
            mined.negatives[query] = of_query.documents[chosen]
            mined.scores[query] = of_query.scores[chosen]
            mined.ranks[query] = of_query.ranks[chosen]
            mined.by_rank[query] = of_query.by_rank[chosen]
            mined.written[query] = mined.scores[query] if written is None else written[index]

    def _order(self, query: int, tally: Tally, *, by_rank: bool) -> tuple[Candidates, np.ndarray]:
        documents, rows = self._found.documents[query], self._rows_of[query]
        return order_candidates(
            documents,
            self._found.scores[query],
            self._answers.among(query, documents),
            self._found.of_pairs[rows].tolist(),
            self._spec.filters,
            tally,
            sampling=self._spec.sampling,
            seed=(self._spec.seed, query),
            prefer=lambda left: self._prefer(left, rows[0]),
            repeats=self._alike.repeats,
            corpus=self._gathered.candidates if by_rank else None,
        )


def keep_own(
    spec: MineSpec,
    context: RunContext,
    gathered: Gathered,
    answers: Answers,
    mined: Mined,
    check: Checker | None,
    bars: dict[int, float],
) -> None:
    """Notes which of the rows' own negatives stay, and what a teacher says of them.

    None that answers its query, none that is among the mined ones, and none that a cross-encoder scores above
    the query's bar (``bars``): it has the last word on these, too.
    """
    number = 0
    for batch in read_batches(gathered.rows):
        context.check_stop()
        able: list[tuple[int, int, int, str]] = []  # row, query, place among its own, text
        wanted: dict[int, int] = {}
        for negatives in batch.column("negatives").to_pylist():
            query = int(gathered.pairs[number, 0])
            most = len(negatives)
            if spec.keep_own == "auto":
                most = max(0, spec.num_negatives - len(mined.negatives[query]))
            if most:
                wanted[number] = most
                able += [
                    (number, query, place, text)
                    for place, text in _able_own(negatives, query, gathered, answers, mined)
                ]
            number += 1
        scores: list[float | None] = [None] * len(able)
        if able and check is not None:
            queries = gathered.queries.texts([query for _, query, _, _ in able])
            texts = [text for _, _, _, text in able]
            scores = check.score(list(zip(queries, texts, strict=True))).tolist()
        for (row, query, place, _), score in zip(able, scores, strict=True):
            own = mined.own.setdefault(row, [])
            if len(own) == wanted[row] or (score is not None and score > bars[query]):
                continue
            own.append(place)
            if score is not None and not mined.written_by_search:
                mined.own_scores.setdefault(row, []).append(score)
        for row in wanted:
            if not mined.own.get(row, True):
                del mined.own[row]


def _able_own(
    negatives: list[str], query: int, gathered: Gathered, answers: Answers, mined: Mined
) -> Iterator[tuple[int, str]]:
    """The places and texts of a row's own negatives that may stay, each text once."""
    taken = set(mined.negatives[query].tolist())
    said: set[str] = set()
    for place, text in enumerate(negatives):
        document = gathered.documents.number_of(text)
        if text in said or document in taken:
            continue
        if document is not None and answers.among(query, np.array([document]))[0]:
            continue
        said.add(text)
        yield place, text


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
