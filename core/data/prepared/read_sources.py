"""Everything that a prepare job reads, cleaned and on disk, with the few bytes of each row that are kept in
mind."""

import json
from array import array
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from core.data.dedup.near_duplicates import Sketches
from core.data.documents.passage import Passage
from core.data.documents.passages import TREES, Cutting, read_passages
from core.data.io.archives import extract, is_archive
from core.data.io.packing import is_packed, unpack
from core.data.io.table_files import ArrowFile
from core.data.prepared.negatives import Passages
from core.data.prepared.splits import Column
from core.data.queries.making import AskedPassage, Models, make_queries
from core.data.queries.passage_file import PassageFile
from core.data.queries.query_report import QueryReport
from core.data.retrieval_sets.judged_folders import is_bright, is_judged, splits_of
from core.data.retrieval_sets.nested import is_retrieval_json, write_judged_folder
from core.data.rows.hashing import text_hash
from core.data.rows.labels import LEFT_OUT, MADE_NEGATIVES
from core.data.rows.reading import TEXT_ROLES, Reading, ReadingReport
from core.data.rows.rejects import Rejects
from core.data.rows.row import Reject
from core.data.sources.formats import is_documents, settle_format
from core.data.training_rows.dataset import CHUNKS, SCHEMA
from core.data.training_rows.pairs import TrainingRow, read_pairs
from core.errors import BadData
from core.runtime.context import RunContext
from core.spec.parts.queries import SELF_SUPERVISED, QueryKind
from core.spec.prepare import Cleaning, PrepareSpec, Source

_ROWS = 2048
_ROLES = (
    *TEXT_ROLES,
    "scores",
    "difficulty",
    "category",
    "group",
    "query_id",
    "positive_id",
    "negative_ids",
)
"""A prepared dataset keeps whatever has a role."""

_TOLD_ROWS = 20_000
"""So often the job says how far it is."""


@dataclass(frozen=True)
class Opened:
    """A source as it lies on disk. ``form`` says how it is read."""

    source: Source
    path: Path
    form: str
    corpus: Path | None

    @property
    def documents(self) -> bool:
        return is_documents(self.form)  # type: ignore[arg-type]


def open_sources(spec: PrepareSpec, context: RunContext, work: Path) -> list[Opened]:
    """Fetches and unpacks every source, and settles what it is. Raises `BadData` or `BadSpec`."""

    def place(reference: str, name: str) -> Path:
        path = context.dataset_path(reference)
        if path.is_file() and is_archive(path.name):
            context.phase("unpacking")
            return extract(path, work / name, check_stop=context.check_stop)
        return path

    found = []
    for index, source in enumerate(spec.sources):
        named = place(source.ref, f"source-{index}")
        if is_packed(named) and source.format not in ("auto", *TREES):
            named = unpack(named, work / f"source-{index}", context.check_stop)
        if spec.task == "retrieval" and is_retrieval_json(named):
            # As the judged set that it is: with its ids, its grades and the documents that nobody judged.
            named = write_judged_folder(named, work / f"judged-{index}", source.encoding)
        form, path = settle_format(
            named, source.format, rows="query" in source.columns, check_stop=context.check_stop
        )
        corpus = place(source.corpus, f"corpus-{index}") if source.corpus is not None else None
        found.append(Opened(source, path, form, corpus))
        context.check_stop()
    return found


@dataclass
class Gathered:
    """All rows that may stay, in the order of their coming, and what has become of the others.

    ``names`` [rows] are 64 bits of each row's content, ``labels`` [rows] of what keeps it together with
    others, or None; ``passage`` [rows] is the number of its positive among ``passages``, or -1;
    ``self_supervised`` [rows]: whether the query is a part of its passage.
    """

    rows: Path
    names: np.ndarray
    labels: np.ndarray | None
    passage: np.ndarray
    self_supervised: np.ndarray
    categories: list[str]
    category: np.ndarray
    queries: Column
    positives: Column
    passages: Passages
    passages_path: Path
    unreadable: Rejects
    left_out: Counter[str]
    pairs: Counter[str]
    dropped_negatives: int
    oversized: int
    unasked: int
    asking: QueryReport | None


class Gatherer:
    """Takes rows and passages as they come. Memory: about a hundred bytes a row, whatever its texts."""

    def __init__(self, spec: PrepareSpec, work: Path, rejects: Path, context: RunContext) -> None:
        self._spec, self._work, self._context = spec, work, context
        self._check_stop, self._told = context.check_stop, 0
        self._near = spec.dedup.near
        self._stack = ExitStack()
        self._rejects = self._stack.enter_context(rejects.open("w", encoding="utf-8"))
        rows = ArrowFile(work / "rows.arrow", SCHEMA, batch_rows=_ROWS, on_full=self._flush)
        chunks = ArrowFile(work / "passages.arrow", CHUNKS, batch_rows=_ROWS, on_full=self._flush)
        self._rows, self._chunks = self._stack.enter_context(rows), self._stack.enter_context(chunks)
        self._sketches = [
            Sketches(work, role, self._near.threshold, spec.seed)
            for role in ("query", "positive")
            if self._near
        ]
        self._hashes = [array("Q"), array("Q")]
        self._names, self._labels = array("Q"), array("Q")
        self._unlabelled = False
        self._passage, self._category, self._self_supervised = array("q"), array("l"), array("b")
        self._waiting: PassageFile | None = None
        self._asking: QueryReport | None = None
        self._known_categories: dict[str, int] = {}
        self._documents: dict[str, int] = {}
        self._of_passages = [array("q"), array("q"), array("q")]  # document, category, number
        self._most = spec.passage_characters[1]
        self.unreadable, self.left_out = Rejects(), Counter[str]()
        self.dropped_negatives = self.oversized = self.unasked = 0

    def reject(self, found: Reject) -> None:
        self.unreadable.add(found)
        self._rejects.write(json.dumps(vars(found), ensure_ascii=False) + "\n")

    def leave_out(self, reason: str, query: str, positive: str) -> None:
        self.left_out[reason] += 1
        line = {"reason": reason, "query": query[:200], "positive": positive[:200]}
        self._rejects.write(json.dumps(line, ensure_ascii=False) + "\n")

    def add(self, row: TrainingRow, passage: int = -1, kind: QueryKind = "given") -> None:
        """A row, which may still be left out. ``kind``: where its query is from."""
        row, dropped = clean(row, self._spec.cleaning)
        self.dropped_negatives += dropped
        if reason := fault(row, self._spec.cleaning):
            self.leave_out(reason, row.query, row.positive)
            return
        self._names.append(text_hash(f"{row.query}\0{row.positive}"))
        self._passage.append(passage)
        self._self_supervised.append(kind in SELF_SUPERVISED)
        self._category.append(self._number_of(row.category))
        by = self._spec.split.by
        if by != "text":
            label = row.category if by == "category" else row.group
            self._unlabelled |= label is None
            if label is None and by != "auto":
                raise BadData(f"split.by {by}: a row has no {by}: {row.query[:80]!r}")
            self._labels.append(text_hash(label or ""))
        self._rows.add(vars(row))

    def _number_of(self, category: str | None) -> int:
        if category is None:
            return -1
        return self._known_categories.setdefault(category, len(self._known_categories))

    def add_passage(self, passage: Passage) -> None:
        """A passage of a document. Its queries are made when all passages are there."""
        if self._is_too_short(passage):
            return
        if self._waiting is None:
            queries = self._spec.queries
            self._waiting = PassageFile(self._work, self._spec.seed, queries, self._check_stop)
        self._waiting.add(passage)

    def ask(self, models: Models) -> None:
        """Make the queries of all passages, and a row of each. Raises what `make_queries` raises."""
        if self._waiting is None:
            return
        corpus = self._waiting.close()
        self._asking = QueryReport(self._spec.seed)
        queries = self._spec.queries
        for asked in make_queries(
            corpus, queries, self._spec.seed, self._context, models, self._asking, self._work
        ):
            self._add_asked(asked)
        if not self._asking.made:
            reasons = ", ".join(f"{why}: {count}" for why, count in self._asking.left_out.most_common(3))
            raise BadData(
                f"no query could be made of {len(corpus)} passages ({reasons or 'nothing in them asks'}): "
                "see queries.of and queries.filters"
            )

    def add_chunk(self, passage: Passage) -> None:
        """A passage that nobody asks for. Its own queries stay beside it."""
        if self._is_too_short(passage):
            return
        given = [draft.forms[0] for draft in passage.drafts if draft.kind == "given"]
        self._keep_passage(passage, passage.text.strip(), given)

    def _is_too_short(self, passage: Passage) -> bool:
        """Whether a passage has less text than ``cleaning.min_document``; then it is left out."""
        too_short = len(passage.text.strip()) < self._spec.cleaning.min_document
        if too_short:
            self.leave_out("nothing is left of the passage", passage.id, passage.text)
        return too_short

    def _add_asked(self, asked: AskedPassage) -> None:
        passage = asked.passage
        number = self._keep_passage(passage, asked.text, [query for query, _, _ in asked.queries])
        self.unasked += not asked.queries
        for query, kind, answer in asked.queries:
            self.add(
                TrainingRow(
                    query,
                    answer,
                    category=passage.category,
                    group=passage.document,
                    positive_id=passage.id,
                ),
                number,
                kind,
            )

    def _keep_passage(self, passage: Passage, text: str, queries: list[str]) -> int:
        """Write a passage. Returns its number."""
        number = len(self._of_passages[0])
        document = self._documents.setdefault(passage.document, len(self._documents))
        values = (document, self._number_of(passage.category), passage.number)
        for column, value in zip(self._of_passages, values, strict=True):
            column.append(value)
        self.oversized += len(text) > self._most
        row = {**vars(passage), "text": text, "header_path": list(passage.path), "queries": queries}
        self._chunks.add({name: row[name] for name in CHUNKS.names})
        return number

    def _flush(self) -> None:
        """Both files together, so that their batches depend on what was read alone."""
        self._check_stop()
        if len(self._names) >= self._told + _TOLD_ROWS:
            self._told = len(self._names)
            self._context.metric(self._told, {"rows": self._told, "rejected": self.unreadable.count})
        for role, name in enumerate(("query", "positive")):
            texts = [row[name] for row in self._rows.waiting]
            if self._sketches:
                self._sketches[role].add(texts)
            else:
                self._hashes[role].extend(text_hash(text) for text in texts)
        self._chunks.flush()
        self._rows.flush()

    def close(self, pairs: Counter[str]) -> Gathered:
        """Everything is there. Raises `BadData` when nothing is, or too much of it cannot be read."""
        self._flush()
        self._stack.close()
        self.unreadable.kept = max(len(self._names), len(self._of_passages[0]))
        if not self.unreadable.kept and self.left_out:
            reasons = ", ".join(f"{reason}: {count}" for reason, count in self.left_out.most_common(3))
            raise BadData(f"no row can be used; left out: {reasons}")
        self.unreadable.check(self._spec.max_reject_share)
        if self._near:
            columns = [Column(*sketch.near(self._check_stop)) for sketch in self._sketches]
        else:
            columns = [Column.of_hashes(np.array(hashes, np.uint64)) for hashes in self._hashes]
        return Gathered(
            self._work / "rows.arrow",
            np.array(self._names, np.uint64),
            np.array(self._labels, np.uint64) if self._labels and not self._unlabelled else None,
            np.array(self._passage, np.int64),
            np.array(self._self_supervised, bool),
            list(self._known_categories),
            np.array(self._category, np.int64),
            columns[0],
            columns[1],
            Passages(*(np.array(column, np.int64) for column in self._of_passages)),
            self._work / "passages.arrow",
            self.unreadable,
            self.left_out,
            pairs,
            self.dropped_negatives,
            self.oversized,
            self.unasked,
            self._asking,
        )


def gather(
    spec: PrepareSpec,
    context: RunContext,
    sources: list[Opened],
    work: Path,
    rejects: Path,
    models: Models,
) -> Gathered:
    """Read every source to its end, and make the queries of documents.

    Raises `BadData` or `Stopped`, and what `make_queries` raises.
    """
    gatherer = Gatherer(spec, work, rejects, context)
    cutting = Cutting.of(spec)
    pairs: Counter[str] = Counter()
    names: set[int] = set()  # of documents of earlier sources
    for index, opened in enumerate(sources):
        source = opened.source
        if opened.documents:
            own: set[int] = set()
            form: Any = opened.form
            reading = Reading.of(source, source.split)
            for found in read_passages(opened.path, form, source.category, cutting, reading):
                gatherer.unreadable.lines += 1
                if isinstance(found, Reject):
                    gatherer.reject(found)
                    continue
                own.add(text_hash(found.document))
                if text_hash(found.document) in names:
                    found = found.below(str(index))
                if spec.task == "chunks":
                    gatherer.add_chunk(found)
                else:
                    gatherer.add_passage(found)
            names |= own
            context.notices(reading.report.sentences(source.ref, _ROLES))
            continue
        _tell_of_splits(opened, context)
        reading = reading_of(opened, pairs)
        rows = 0
        for record in read_pairs(opened.path, reading=reading):
            rows += 1
            if isinstance(record, Reject):
                gatherer.reject(record)
            elif record.category is None and source.category is not None:
                gatherer.add(replace(record, category=source.category))
            else:
                gatherer.add(record)
        gatherer.unreadable.lines += reading.report.records or rows
        for reason in (LEFT_OUT, MADE_NEGATIVES):
            gatherer.left_out[reason] += pairs.pop(reason, 0)
        context.notices(reading.report.sentences(source.ref, _ROLES))
    gatherer.ask(models)
    gatherer.left_out += Counter()  # without the reasons that never came
    return gatherer.close(pairs)


def _tell_of_splits(opened: Opened, context: RunContext) -> None:
    """A judged set has several splits, and rows are made of one."""
    if opened.source.split is None and is_judged(opened.path) and not is_bright(opened.path):
        splits = list(splits_of(opened.path))
        if len(splits) > 1 and "train" in splits:
            others = ", ".join(split for split in splits if split != "train")
            context.notice(f"{opened.source.ref}: its split train is read, and not {others} (source.split).")


def reading_of(opened: Opened, pairs: Counter[str]) -> Reading:
    source = opened.source
    return replace(
        Reading.of(source, source.split),
        long=source.format == "bright_long",
        reasonir=True if source.format == "reasonir" else None,
        corpus=opened.corpus,
        report=ReadingReport(counts=pairs),
    )


def clean(row: TrainingRow, cleaning: Cleaning) -> tuple[TrainingRow, int]:
    """Without white space around texts, and without negatives that are too short, too long or there twice."""
    query, positive = row.query.strip(), row.positive.strip()
    if not row.negatives:
        return replace(row, query=query, positive=positive), 0
    kept: dict[str, int] = {}
    for index, text in enumerate(row.negatives):
        stripped = text.strip()
        if _within(stripped, cleaning.min_document, cleaning.max_document):
            kept.setdefault(stripped, index)
    kept.pop(positive, None)
    chosen = kept.values()
    cleaned = replace(
        row,
        query=query,
        positive=positive,
        negatives=list(kept),
        scores=row.scores and [row.scores[0], *(row.scores[1 + index] for index in chosen)],
        difficulty=row.difficulty and [row.difficulty[index] for index in chosen],
        negative_ids=row.negative_ids and [row.negative_ids[index] for index in chosen],
    )
    return cleaned, len(row.negatives) - len(kept)


def fault(row: TrainingRow, cleaning: Cleaning) -> str | None:
    """Why a row cannot stay."""
    if not _within(row.query, cleaning.min_query, cleaning.max_query):
        return "query too short" if len(row.query) < cleaning.min_query else "query too long"
    if not _within(row.positive, cleaning.min_document, cleaning.max_document):
        return "positive too short" if len(row.positive) < cleaning.min_document else "positive too long"
    if row.query == row.positive:
        return "the positive is the query"
    return None


def _within(text: str, least: int, most: int | None) -> bool:
    return least <= len(text) and (most is None or len(text) <= most)
