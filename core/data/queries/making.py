"""All queries of a corpus: chosen and written ones, filtered, beside the texts that answer them."""

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa

from core.data.documents.passage import Passage, flatten_spans, pair_spans
from core.data.io.table_files import ArrowFile, read_batches
from core.data.queries.choosing import Query, choose_queries, hidden_spans, without
from core.data.queries.corpus_words import words_key
from core.data.queries.passage_file import Corpus, shared_keys
from core.data.queries.query_report import QueryReport
from core.data.queries.real import read_real_queries, resolve
from core.data.queries.written import write_queries
from core.errors import BadData
from core.runtime.context import RunContext
from core.spec.parts.queries import SELF_SUPERVISED, Queries, QueryKind, RoundTrip, TeacherScore

_TEXT = pa.large_string()
_SCHEMA = pa.schema(
    [
        ("passage", pa.int64()),
        ("text", _TEXT),
        ("kind", _TEXT),
        ("spans", pa.large_list(pa.int32())),
        ("shared", pa.bool_()),
    ]
)
_AMBIGUOUS, _LOST, _LOW = "ambiguous", "does not find its passage", "scored too low by the cross-encoder"


class Models(Protocol):
    """The models that filters need: `core.retrieval.query_models` has the one that loads them."""

    def found(
        self,
        asked: RoundTrip,
        texts: Callable[[], Iterator[str]],
        group: np.ndarray,
        queries: Sequence[str],
        own: np.ndarray,
    ) -> np.ndarray:
        """Whether one of the first ``top_k`` passages of each query is of its own group. [queries]"""
        ...

    def scores(self, asked: TeacherScore, pairs: Iterator[tuple[str, str]]) -> Iterator[float]:
        """A cross-encoder's score of each pair of query and text."""
        ...


@dataclass(frozen=True)
class AskedPassage:
    """A passage, the text of it that is kept, and its queries: text, kind and the text that answers."""

    passage: Passage
    text: str
    queries: list[tuple[str, QueryKind, str]]


@dataclass
class _Table:
    """The queries on disk, and a few bytes of each in memory. All arrays are [queries]."""

    path: Path
    passage: np.ndarray
    key: np.ndarray
    given: np.ndarray
    made: np.ndarray  # whether other filters are for it: not for given and self-supervised ones
    reason: list[str]  # "" while it stays

    @property
    def left(self) -> np.ndarray:
        return np.array([not reason for reason in self.reason], bool)

    def rows(self) -> Iterator[tuple[int, dict[str, object]]]:
        number = 0
        for batch in read_batches(self.path):
            for row in batch.to_pylist():
                yield number, row
                number += 1


def make_queries(
    corpus: Corpus,
    queries: Queries,
    seed: int,
    context: RunContext,
    models: Models,
    report: QueryReport,
    work: Path,
) -> Iterator[AskedPassage]:
    """Every passage with its queries. Raises `BadSpec`, `EndpointFailure` and `Stopped`."""
    if queries.real is not None:
        path = context.dataset_path(queries.real)
        yield from _asked_by_people(corpus, path, queries.real, context, report)
        return
    report.boilerplate_sections = int(corpus.boilerplate.sum())
    table = _collect(corpus, queries, seed, context, report, work)
    _drop_ambiguous(corpus, queries, table)
    if queries.filters.round_trip is not None:
        _drop_lost(corpus, queries.filters.round_trip, table, context, models)
    if queries.filters.cross_encoder is not None:
        _drop_low(corpus, queries.filters.cross_encoder, table, context, models)
    yield from _assembled(corpus, table, report)


def _asked_by_people(
    corpus: Corpus, path: Path, name: str, context: RunContext, report: QueryReport
) -> Iterator[AskedPassage]:
    """Passages as they are, with the queries whose documents they are. Raises `BadData`."""
    try:
        asked = read_real_queries(path)
    except BadData as error:
        raise BadData(f"queries.real ({name}): {error}") from error
    found = resolve(asked, corpus.passages())
    if len(found.unknown) == len(asked):
        raise BadData(
            f"queries.real ({name}): no row names a document of the source. The first of {len(asked):,} rows "
            f"names {found.unknown[0]!r}; a document is named, for example, {found.example!r}"
        )
    report.asked = len(asked) - len(found.unknown)
    if found.unknown:
        context.notice(
            f"queries.real: {len(found.unknown):,} of {len(asked):,} rows name documents that are not in the "
            f"source and are left out, for example {_some(found.unknown)}. A document is named, for example, "
            f"{found.example}.",
            "warning",
        )
        report.left_out["names an unknown document"] += len(found.unknown)
    if found.whole:
        context.notice(
            f"queries.real: {len(found.whole):,} of {len(asked):,} rows name passages that do not exist, for "
            f"example {_some(found.whole)}: all passages of their documents count as answers. The ids of "
            "passages depend on chunking.",
            "warning",
        )
    for passage in corpus.passages():
        text = passage.text.strip()
        queries = found.of(passage)
        for query in queries:
            report.keep("given", query, passage, text)
        yield AskedPassage(passage, text, [(query, "given", text) for query in queries])


def _some(names: Iterable[str]) -> str:
    return ", ".join(sorted(set(names))[:3])


def _collect(
    corpus: Corpus, queries: Queries, seed: int, context: RunContext, report: QueryReport, work: Path
) -> _Table:
    """Choose and write queries, and put all of them on disk."""
    written = write_queries(corpus, queries, context, report)
    path = work / "queries.arrow"
    passages, keys, given, made = array("q"), array("Q"), array("b"), array("b")
    chosen = choose_queries(corpus, queries, seed, report, context.check_stop)
    with ArrowFile(path, _SCHEMA) as file:
        for number, passage, following, found in chosen:
            if written is not None:
                more = written.of(number, passage, following, report)
                found += written.judged(passage, following, more, report)
            for query in found:
                passages.append(number)
                keys.append(words_key(query.text))
                given.append(query.kind == "given")
                made.append(query.kind not in SELF_SUPERVISED and query.kind != "given")
                file.add(_row(number, query))
    if written is not None:
        written.answers.close()
    if report.unjudged:
        context.notice(
            f"{report.unjudged:,} queries are kept without a score of the judge: the budget was used up, or "
            "it has given no score.",
            "warning",
        )
    return _Table(
        path,
        np.array(passages, np.int64),
        np.array(keys, np.uint64),
        np.array(given, bool),
        np.array(made, bool),
        [""] * len(keys),
    )


def _row(number: int, query: Query) -> dict[str, object]:
    return {
        "passage": number,
        "text": query.text,
        "kind": query.kind,
        "spans": flatten_spans(query.spans),
        "shared": query.shared,
    }


def _drop_ambiguous(corpus: Corpus, queries: Queries, table: _Table) -> None:
    """Queries of different kinds, too, must not ask for different passages with the same words."""
    if queries.filters.ambiguous == "keep":
        return
    shared = shared_keys(table.key, corpus.group[table.passage])
    for number in np.flatnonzero(np.isin(table.key, shared)).tolist():
        if not table.given[number]:
            table.reason[number] = _AMBIGUOUS


def _drop_lost(corpus: Corpus, asked: RoundTrip, table: _Table, context: RunContext, models: Models) -> None:
    """Queries that do not find their passage, or one that says the same, among the first ranks."""
    context.phase("filtering")
    able = np.flatnonzero(table.left & table.made)
    wanted = set(able.tolist())
    texts = [str(row["text"]) for number, row in table.rows() if number in wanted]
    if not texts:
        return
    own = corpus.group[table.passage[able]]
    found = models.found(
        asked, lambda: (_text_of(*beside) for beside in _beside(corpus, table)), corpus.group, texts, own
    )
    for number in able[~found].tolist():
        table.reason[number] = _LOST
    context.phase("preparing")


def _drop_low(
    corpus: Corpus, asked: TeacherScore, table: _Table, context: RunContext, models: Models
) -> None:
    if asked.min_score is None:
        return
    context.phase("filtering")
    able = table.left & table.made
    numbers = np.flatnonzero(able).tolist()

    def pairs() -> Iterator[tuple[str, str]]:
        for passage, rows in _beside(corpus, table):
            text = _text_of(passage, rows)
            for number, row in rows:
                if able[number]:
                    yield str(row["text"]), text

    for number, score in zip(numbers, models.scores(asked, pairs()), strict=True):
        if score < asked.min_score:
            table.reason[number] = _LOW
    context.phase("preparing")


def _beside(corpus: Corpus, table: _Table) -> Iterator[tuple[Passage, list[tuple[int, dict[str, object]]]]]:
    """Each passage with the rows of its queries."""
    rows = table.rows()
    waiting = next(rows, None)
    for number, passage in enumerate(corpus.passages()):
        found = []
        while waiting is not None and waiting[1]["passage"] == number:
            found.append(waiting)
            waiting = next(rows, None)
        yield passage, found


def _text_of(passage: Passage, rows: list[tuple[int, dict[str, object]]]) -> str:
    """The passage without what its queries say, as rows will have it."""
    return without(passage.text, hidden_spans(_query(row) for _, row in rows))


def _assembled(corpus: Corpus, table: _Table, report: QueryReport) -> Iterator[AskedPassage]:
    shared: list[Query] = []  # of the passage before
    for passage, rows in _beside(corpus, table):
        kept = [*shared]
        shared = []
        for number, row in rows:
            query = _query(row)
            if reason := table.reason[number]:
                report.leave_out(reason, query.kind, query.text, passage)
                continue
            kept.append(query)
            if query.shared:
                shared.append(Query(query.text, query.kind))
        hidden = hidden_spans(kept)
        text = without(passage.text, hidden)
        found = []
        for query in kept:
            own = query.kind in SELF_SUPERVISED and query.spans
            answer = without(passage.text, [*hidden, *query.spans]) if own else text
            report.keep(query.kind, query.text, passage, answer)
            found.append((query.text, query.kind, answer))
        yield AskedPassage(passage, text, found)


def _query(row: dict[str, object]) -> Query:
    return Query(
        str(row["text"]),
        row["kind"],  # type: ignore[arg-type]
        pair_spans(row["spans"]),  # type: ignore[arg-type]
        bool(row["shared"]),
    )
