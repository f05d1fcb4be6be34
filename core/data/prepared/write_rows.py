"""The rows of a prepared dataset: without repetitions, split, balanced, with negatives, written by split."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.data.dedup.alike import neighbours
from core.data.io.table_files import ParquetFile, map_arrow_file, read_batches
from core.data.prepared.balance import SPLITS, balance_categories, warn_of_categories
from core.data.prepared.negatives import LEVELS, Chosen, choose
from core.data.prepared.read_sources import Gathered
from core.data.prepared.retrieval_set import write_retrieval
from core.data.prepared.splits import assign, components, draw, first_of_each, mark_near_duplicates
from core.data.queries.making import Models
from core.data.rows.statistics import PREVIEW_ROWS, Statistics, write_preview
from core.data.training_rows.dataset import CHUNKS, SCHEMA
from core.data.training_rows.page import DatasetPage, NegativeCounts, PassageCounts
from core.errors import BadData
from core.runtime.context import RunContext
from core.spec.prepare import PrepareSpec

Teacher = Callable[[Iterator[tuple[str, str]]], Iterator[float]]
"""Scores of pairs of query and text."""


class _Counting(Statistics):
    """Counts tables of rows, and keeps the first of each split to show."""

    def __init__(self) -> None:
        super().__init__()
        self.preview: dict[str, list[dict[str, Any]]] = defaultdict(list)

    def count(self, rows: pa.Table, split: str) -> None:
        for role, column in (("query", "query"), ("positive", "positive"), ("negative", "negatives")):
            values = rows.column(column)
            self._count(role, pc.list_flatten(values) if role == "negative" else values)
        self.categories.update(_counted(rows.column("category")))
        self.difficulty.update(_counted(pc.list_flatten(rows.column("difficulty"))))
        self._show(rows, split)

    def count_passages(self, passages: pa.Table) -> None:
        self._count("passage", passages.column("text"))
        self.categories.update(_counted(passages.column("category")))
        self._show(passages, "chunks")

    def _count(self, role: str, texts: Any) -> None:
        self.lengths[role].update(_counted(pc.utf8_length(texts)))

    def _show(self, rows: pa.Table, split: str) -> None:
        shown = self.preview[split]
        if len(shown) < PREVIEW_ROWS:
            shown += rows.slice(0, PREVIEW_ROWS - len(shown)).to_pylist()


def _counted(values: Any) -> dict[Any, int]:
    counts = values.value_counts().to_pylist()
    return {item["values"]: item["counts"] for item in counts if item["values"] is not None}


def write_rows(
    spec: PrepareSpec,
    context: RunContext,
    gathered: Gathered,
    out: Path,
    rejects: Path,
    task: str,
    models: Models,
) -> DatasetPage:
    """Rows into splits, with negatives where they come from passages. Returns the page of it."""
    verdict = _repetitions(spec, gathered)
    names = list(SPLITS)
    shares = {name: getattr(spec.split, name) for name in ("test", "dev")}
    belonging, splits = _split(spec, context, gathered, shares)
    if task == "retrieval" and not any(shares.values()):
        splits[:] = 0  # all of it is the test
    _spare_tests(gathered, splits, verdict)
    verdict, told = balance_categories(spec.balance, gathered, verdict, splits, spec.seed)
    for sentence in told:
        context.notice(sentence, "warning")
    if spec.sample is not None:
        left = np.flatnonzero(verdict == 0)
        verdict[left[~draw(gathered.names[left], spec.sample, spec.seed)]] = 4
    kept = verdict == 0
    if not kept.any():
        raise BadData("nothing is left of the rows")
    splits[~kept] = -1
    sizes = {name: int((splits == index).sum()) for index, name in enumerate(names)}
    _check_splits(spec, belonging[kept], shares, sizes, task)
    chosen = _negatives(spec, context, gathered, splits) if task != "retrieval" else None
    statistics = _Counting()
    with rejects.open("a", encoding="utf-8") as rejected:

        def each(batch: pa.Table, rows: slice) -> None:
            context.check_stop()
            _tell_left_out(gathered, batch, verdict[rows], rejected)

        if task == "retrieval":

            def count_too(batch: pa.Table, rows: slice) -> None:
                each(batch, rows)
                for index, name in enumerate(names):
                    statistics.count(batch.filter(pa.array(splits[rows] == index)), name)

            page = write_retrieval(gathered, splits, names, out, count_too)
        else:
            _write_splits(gathered, splits, names, out, chosen, statistics, each, _teacher(spec, models))
            page = DatasetPage(type="triplets", splits={name: sizes[name] for name in reversed(names)})
    page.rows = int(kept.sum())
    page.statistics = statistics.page()
    write_preview(out, {split: found for split, found in statistics.preview.items() if found})
    if len(gathered.passages):
        page.passages = PassageCounts(
            all=len(gathered.passages),
            nobody_asks_for=gathered.unasked,
            longer_than_asked=gathered.oversized,
        )
    if chosen is not None:
        page.negatives = _count_negatives(spec, chosen, context)
    warn_of_categories(spec, gathered, kept, context)
    return page


_REASONS = {
    1: "said before",
    2: "nearly said before",
    3: "more than its category's share",
    4: "not in the sample",
    5: "a part of its own passage: not tested on",
}


def _split(
    spec: PrepareSpec, context: RunContext, gathered: Gathered, shares: dict[str, float]
) -> tuple[np.ndarray, np.ndarray]:
    """What belongs together, and the split of every row. [rows], [rows]

    Of all rows, left out or not: which of two near ones stays depends on their order, their split does not.
    """
    belonging = components(gathered.queries, gathered.positives, gathered.labels, gathered.passage)
    splits = assign(belonging, gathered.names, shares, spec.seed).astype(np.int8)
    if spec.split.by != "auto" or gathered.labels is None:
        return belonging, splits
    sizes = [int((splits == index).sum()) for index in range(len(shares))]
    wanted = [share * len(splits) for share in shares.values()]
    if all(size >= least / 2 for size, least in zip(sizes, wanted, strict=True)):
        return belonging, splits
    largest = int(np.unique(belonging, return_counts=True)[1].max())
    context.notice(
        f"Rows are split by text and not by group: {largest} of {len(splits)} rows belong to one group or to "
        "groups that share texts, which leaves too few for a split.",
        "warning",
    )
    belonging = components(gathered.queries, gathered.positives, None, gathered.passage)
    return belonging, assign(belonging, gathered.names, shares, spec.seed).astype(np.int8)


def _spare_tests(gathered: Gathered, splits: np.ndarray, verdict: np.ndarray) -> None:
    """Leave self-supervised rows out of splits that are evaluated on, unless there are no others."""
    for index in range(len(SPLITS) - 1):
        here = (splits == index) & (verdict == 0)
        if (here & ~gathered.self_supervised).any():
            verdict[here & gathered.self_supervised] = 5


def _repetitions(spec: PrepareSpec, gathered: Gathered) -> np.ndarray:
    """For every row 0 when it stays, or a key of `_REASONS`. [rows]"""
    verdict = np.zeros(len(gathered.names), np.int8)
    if spec.dedup.exact:
        verdict[~first_of_each(gathered.names)] = 1
    if spec.dedup.near is not None:
        near = mark_near_duplicates(gathered.queries, gathered.positives, verdict == 0)
        verdict[near] = 2
    return verdict


def _check_splits(
    spec: PrepareSpec, belonging: np.ndarray, shares: dict[str, float], sizes: dict[str, int], task: str
) -> None:
    for name, share in shares.items():
        if share > 0 and not sizes[name]:
            largest = int(np.unique(belonging, return_counts=True)[1].max())
            raise BadData(
                f"split.{name} {share:g} of {len(belonging)} rows{' of the sample' if spec.sample else ''} "
                f"cannot be had by {spec.split.by}: what "
                f"belongs together has up to {largest} rows. "
                + (
                    "Ask for more."
                    if spec.split.by in ("text", "auto")
                    else "Split by text, or ask for more."
                )
            )
    if task != "retrieval" and not sizes["train"]:
        raise BadData("the splits leave nothing to train on")


def _negatives(
    spec: PrepareSpec, context: RunContext, gathered: Gathered, splits: np.ndarray
) -> Chosen | None:
    """Negatives of the rows whose positives are passages; None when there are none of these."""
    of_passages = (gathered.passage >= 0) & (splits >= 0)
    if not of_passages.any():
        return None
    context.phase("mining")
    shape = (len(splits), spec.negatives.per_query)
    chosen = Chosen(np.full(shape, -1, np.int32), np.full(shape, -1, np.int8))
    forbidden = _Answers(gathered)
    texts = map_arrow_file(gathered.passages_path).column("text")
    queries = map_arrow_file(gathered.rows).column("query")
    for split in range(3):
        choose(
            spec.negatives,
            spec.difficulty_mix,
            gathered.passages,
            np.flatnonzero(of_passages & (splits == split)),
            gathered.passage,
            forbidden.of,
            forbidden.alike,
            lambda numbers: texts.take(pa.array(numbers)).to_pylist(),
            lambda numbers: queries.take(pa.array(numbers)).to_pylist(),
            spec.seed,
            context.check_stop,
            chosen,
        )
    context.phase("preparing")
    return chosen


class _Answers:
    """Which passages answer a row's query, or nearly repeat one that does."""

    def __init__(self, gathered: Gathered) -> None:
        self._gathered = gathered
        self._of_query: dict[int, set[int]] = defaultdict(set)
        self._of_text: dict[int, set[int]] = defaultdict(set)
        self._text_of: dict[int, int] = {}
        queries, positives = gathered.queries.same_as.tolist(), gathered.positives.same_as.tolist()
        for row, passage in enumerate(gathered.passage.tolist()):
            if passage >= 0:
                self._of_query[queries[row]].add(passage)
                self._of_text[positives[row]].add(passage)
                self._text_of[passage] = positives[row]
        self._near_query = neighbours(gathered.queries.near)
        self._near_text = neighbours(gathered.positives.near)

    def of(self, row: int) -> set[int]:
        query = int(self._gathered.queries.same_as[row])
        answers: set[int] = set()
        for near in (query, *self._near_query.get(query, ())):
            answers |= self._of_query.get(near, set())
        return answers.union(*(self.alike(passage) for passage in answers))

    def alike(self, passage: int) -> set[int]:
        """The passage, and those that say the same, or nearly."""
        text = self._text_of[passage]
        found = {passage}
        for near in (text, *self._near_text.get(text, ())):
            found |= self._of_text.get(near, set())
        return found


def _tell_left_out(gathered: Gathered, batch: pa.Table, verdict: np.ndarray, file: IO[str]) -> None:
    """Counts and writes down the rows that are left out because of others."""
    for index in np.flatnonzero(verdict).tolist():
        reason = _REASONS[int(verdict[index])]
        gathered.left_out[reason] += 1
        line = {name: batch.column(name)[index].as_py()[:200] for name in ("query", "positive")}
        file.write(json.dumps({"reason": reason, **line}, ensure_ascii=False) + "\n")


def _write_splits(
    gathered: Gathered,
    splits: np.ndarray,
    names: list[str],
    out: Path,
    chosen: Chosen | None,
    statistics: _Counting,
    each: Callable[[pa.Table, slice], None],
    teacher: Teacher | None,
) -> None:
    """Rows into a file for each split that has any."""
    with ExitStack() as stack:
        writers = {
            index: stack.enter_context(ParquetFile(out / f"{names[index]}.parquet", SCHEMA))
            for index in range(len(names))
            if (splits == index).any()
        }
        fill = _Filler(gathered, chosen) if chosen is not None else None
        begin = 0
        for batch in read_batches(gathered.rows):
            table = pa.Table.from_batches([batch])
            rows = slice(begin, begin + table.num_rows)
            begin = rows.stop
            each(table, rows)
            if fill is not None:
                table = fill(table, rows)
            if teacher is not None:
                table = _with_scores(table, gathered.passage[rows] >= 0, teacher)
            for index, writer in writers.items():
                part = table.filter(pa.array(splits[rows] == index))
                if part.num_rows:
                    statistics.count(part, names[index])
                    writer.add_table(part)


def _teacher(spec: PrepareSpec, models: Models) -> Teacher | None:
    asked = spec.queries.filters.cross_encoder
    return partial(models.scores, asked) if asked is not None and asked.keep_scores else None


def _with_scores(table: pa.Table, of_passages: np.ndarray, teacher: Teacher) -> pa.Table:
    """With the teacher's scores of the positive and of each negative, in rows that documents make."""
    lists = [
        [row["positive"], *(row["negatives"] or [])] if asked else []
        for row, asked in zip(table.select(["positive", "negatives"]).to_pylist(), of_passages, strict=True)
    ]
    queries = table.column("query").to_pylist()
    pairs = ((query, text) for query, texts in zip(queries, lists, strict=True) for text in texts)
    found = teacher(pairs)
    own = table.column("scores").to_pylist()
    scores = [[next(found) for _ in texts] or old for texts, old in zip(lists, own, strict=True)]
    place = table.schema.get_field_index("scores")
    return table.set_column(place, SCHEMA.field("scores"), pa.array(scores, SCHEMA.field("scores").type))


class _Filler:
    """Puts chosen passages into rows as their negatives."""

    def __init__(self, gathered: Gathered, chosen: Chosen) -> None:
        self._chosen, self._passage = chosen, gathered.passage
        passages = map_arrow_file(gathered.passages_path)
        self._texts, self._ids = passages.column("text"), passages.column("id")

    def __call__(self, table: pa.Table, rows: slice) -> pa.Table:
        if (self._passage[rows] < 0).all():
            return table
        numbers, levels = self._chosen.negatives[rows], self._chosen.levels[rows]
        there = numbers >= 0
        flat = pa.array(numbers[there])
        offsets = pa.array(np.concatenate([[0], np.cumsum(there.sum(axis=1))]), pa.int64())
        words = pa.array([LEVELS[level] for level in levels[there].tolist()], pa.string())
        made = {
            "negatives": self._texts.take(flat).combine_chunks(),
            "negative_ids": self._ids.take(flat).combine_chunks(),
            "difficulty": words,
        }
        of_passages = pa.array(self._passage[rows] >= 0)
        for name, values in made.items():
            filled = pa.LargeListArray.from_arrays(offsets, values)
            own = table.column(name).combine_chunks()
            place = table.schema.get_field_index(name)
            table = table.set_column(place, SCHEMA.field(name), pc.if_else(of_passages, filled, own))
        return table


def _count_negatives(spec: PrepareSpec, chosen: Chosen, context: RunContext) -> NegativeCounts:
    whole = sum(chosen.counts.values())
    if chosen.empty:
        context.notice(
            f"{chosen.empty} places for negatives stay empty: there are too few passages for the mix, "
            "max_per_difficulty or max_uses.",
            "warning",
        )
    return NegativeCounts(
        asked=dict(spec.difficulty_mix),
        counts={level: chosen.counts[level] for level in LEVELS},
        shares={level: round(chosen.counts[level] / max(whole, 1), 4) for level in LEVELS},
        places_left_empty=chosen.empty,
    )


def write_chunks(gathered: Gathered, out: Path, context: RunContext) -> DatasetPage:
    statistics = _Counting()
    with ParquetFile(out / "chunks.parquet", CHUNKS) as file:
        for batch in read_batches(gathered.passages_path):
            context.check_stop()
            table = pa.Table.from_batches([batch])
            statistics.count_passages(table)
            file.add_table(table)
    write_preview(out, statistics.preview)
    return DatasetPage(
        type="chunks",
        rows=file.rows,
        splits={"chunks": file.rows},
        statistics=statistics.page(),
        passages=PassageCounts(all=file.rows, longer_than_asked=gathered.oversized),
    )
