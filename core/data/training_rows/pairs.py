"""Training rows of files, folders, prepared datasets and judged sets: one canonical row, whatever they look
like."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import chain, islice
from pathlib import Path

from core.artifacts import MANIFEST
from core.data.io.folders import files_of_split, split_files
from core.data.io.lookup import Texts
from core.data.io.readers import read_rows
from core.data.retrieval_sets.judged_folders import is_judged, judged_files, judged_pairs, read_texts
from core.data.retrieval_sets.nested import is_retrieval_json, retrieval_json_rows, unnested
from core.data.rows.labels import LabelledPairs, graded_row, judge, mark_of
from core.data.rows.reading import Reading, ReadingReport
from core.data.rows.record import RecordParser, TrainingRow
from core.data.rows.row import Reject, Row
from core.data.training_rows.distillation import is_scored_by_ids, scored_rows
from core.data.training_rows.reasonir import ReasonIR, is_reasonir, wanted_ids
from core.errors import BadData

__all__ = ["DATASET_FACTS", "Reading", "TrainingRow", "is_dataset", "read_pairs", "rows_of"]

DATASET_FACTS = "dataset.json"
"""Its presence makes a folder a prepared dataset: see `core.data.training_rows.dataset`."""

_LOOKED_AT = 100
"""Records that tell which shape they all have."""

_IDS = {"positive_document_ids": "positive_passages", "negative_document_ids": "negative_passages"}
"""Tevatron's rows that name documents, and what they become when these are looked up."""

_Parse = Callable[[Row], Iterator[TrainingRow | Reject]]


def read_pairs(
    path: Path, split: str | None = None, reading: Reading | None = None
) -> Iterator[TrainingRow | Reject]:
    """Every training row of a file, of a folder of files, of a prepared dataset or of a judged set.

    A record with several positives makes several rows. ``reading.report`` is complete when all were read.
    Raises `BadData`.
    """
    reading = reading or Reading(split)
    known = _known_form(path, reading)
    if known is not None:
        asked = {"columns": reading.columns, "labels": reading.labels not in ("auto", "defer")}
        if options := [name for name, given in asked.items() if given]:
            reading.report.note(f"{' and '.join(options)} have no effect: its columns are fixed", "warning")
        yield from known
        return
    files = rows_of(path, reading.split)
    if path.is_dir():
        _report_other_files(path, files, reading.report)
    if all(map(is_retrieval_json, files)):
        for file in files:
            yield from retrieval_json_rows(file, reading)
        return
    yield from _of_records(path, files, reading)


def _known_form(path: Path, reading: Reading) -> Iterator[TrainingRow | Reject] | None:
    """The rows of what has columns of its own: prepared datasets, judged sets, scores by ids. Else None."""
    if is_dataset(path):
        from core.data.training_rows.dataset import read_split  # Parquet's library is the worker's

        return _reported(read_split(path, reading.split or "train"), reading.report)
    if is_judged(path):
        return judged_pairs(
            path, reading.split, long=reading.long, encoding=reading.encoding, report=reading.report
        )
    if is_scored_by_ids(path):
        return scored_rows(path, reading.split, reading.report, reading.encoding)
    return None


def _of_records(path: Path, files: list[Path], reading: Reading) -> Iterator[TrainingRow | Reject]:
    """The rows of files of records, in the shape that the first records have."""
    quiet = reading.quietly()
    first = [row for row in islice(_rows(files, quiet), _LOOKED_AT) if isinstance(row, Row)]
    with ExitStack() as stack:
        if reading.reasonir or (reading.reasonir is None and any(is_reasonir(row.values) for row in first)):
            texts = None
            if reading.corpus is not None:
                texts = stack.enter_context(Texts())
                _look_up(texts, reading.corpus, wanted_ids(_rows(files, quiet)), reading.counts)
            yield from _parsed(files, reading, ReasonIR(texts, reading.counts).rows)
        elif any(_IDS.keys() & row.values.keys() for row in first):
            if reading.corpus is None:
                raise BadData(f"{path.name} names documents by their ids: say where they are (corpus)")
            texts = stack.enter_context(Texts())
            _look_up(texts, reading.corpus, _named(_rows(files, quiet)), reading.counts)
            found, parser = texts, RecordParser(reading)
            yield from _parsed(
                files, reading, lambda row: parser.rows(_with_texts(row, found, reading.counts))
            )
        else:
            yield from _of_pairs(files, reading, first)


def _parsed(files: list[Path], reading: Reading, parse: _Parse) -> Iterator[TrainingRow | Reject]:
    for row in _rows(files, reading):
        reading.report.records += 1
        if isinstance(row, Reject):
            yield row
        else:
            yield from parse(_renamed(row, reading))


def _of_pairs(files: list[Path], reading: Reading, first: list[Row]) -> Iterator[TrainingRow | Reject]:
    """The rows of records that hold their texts, by the labels beside them where there are any."""
    parser = RecordParser(reading)
    _check_columns(first, parser)
    deferred = reading.labels in ("ignore", "defer") or reading.graded
    labelled = not deferred and any(
        mark_of(row, parser.peek(row)) or getattr(reading.labels, "decides", False) for row in first
    )
    pairs = LabelledPairs(lambda: _rows(files, reading.quietly()), parser) if not deferred else None
    for row in _rows(files, reading):
        reading.report.records += 1
        if isinstance(row, Reject):
            yield row
            continue
        roles = parser.peek(row)
        try:
            verdict = None if pairs is None else judge(row, roles, reading.labels)
        except ValueError as error:
            yield Reject(row.file, row.line, str(error))
            continue
        if verdict is None and labelled and roles.mark is not None:
            value = row.values[roles.mark]
            yield Reject(row.file, row.line, f"{roles.mark} is {value!r}: no label of this pair")
        elif verdict is not None and pairs is not None:
            labelled = True
            yield from pairs.rows(row, verdict)
        elif reading.graded:
            yield from _graded(row, parser, reading)
        else:
            yield from parser.rows(row)
    if labelled and pairs is not None:
        pairs.close()
    elif not reading.graded and reading.labels != "defer":
        reading.report.without("label", "score")


def _graded(row: Row, parser: RecordParser, reading: Reading) -> Iterator[TrainingRow | Reject]:
    roles = parser.peek(row)
    for found in parser.rows(row):
        try:
            yield found if isinstance(found, Reject) else graded_row(row, roles, found, reading.labels)
        except ValueError as error:
            yield Reject(row.file, row.line, str(error))


def _check_columns(first: list[Row], parser: RecordParser) -> None:
    """Raises `BadData` for a file in none of whose first records a query or a positive is known."""
    for role in ("query", "positive"):
        if first and all(getattr(parser.peek(row), role) is None for row in first):
            row = first[0]
            message = parser.missing(role, row, parser.peek(row))
            raise BadData(f"{row.file}, line {row.line}: {message}")


def _reported(rows: Iterator[TrainingRow], report: ReadingReport) -> Iterator[TrainingRow]:
    """The rows of a prepared dataset, whose columns are named as the first ones fill them. Ids, which
    preparation adds to every row, are not missed by a job that has no use for them."""
    first = list(islice(rows, 40 * _LOOKED_AT))
    for row in first:
        for role, value in vars(row).items():
            if role not in _ADDED and value not in (None, []):
                report.used(role, role)
    yield from chain(first, rows)


_ADDED = ("query_id", "positive_id", "negative_ids")


def _report_other_files(folder: Path, files: list[Path], report: ReadingReport) -> None:
    """Names what lies in the folder and is not read: other splits, and files that are no data."""
    tops = {file.relative_to(folder).parts[0] if file.is_relative_to(folder) else "" for file in files}
    for path in sorted(folder.iterdir()):
        if path.name not in tops and path.name != MANIFEST and not path.name.startswith("."):
            report.files.append(f"{path.name}/" if path.is_dir() else path.name)


def rows_of(path: Path, split: str | None) -> list[Path]:
    """The file, or a folder's files of a split. Raises `BadData`."""
    if path.is_dir():
        return files_of_split(path, split)
    if split is not None:
        raise BadData(f"{path.name} is one file: it has no split {split!r}")
    return [path]


def is_dataset(path: Path) -> bool:
    """Whether a folder is a prepared dataset."""
    return (path / DATASET_FACTS).is_file()


def _rows(files: list[Path], reading: Reading) -> Iterator[Row | Reject]:
    for file in files:
        for row in read_rows(file, reading.encoding, header=reading.header, report=reading.report):
            if isinstance(row, Row) and "paragraphs" in row.values:
                yield from unnested(row)
            else:
                yield row


def _renamed(row: Row, reading: Reading) -> Row:
    """The record with the columns that the spec names under the names of their roles."""
    if not reading.columns:
        return row
    values = {name: value for name, value in row.values.items() if name not in reading.columns}
    for name, there in reading.columns.items():
        if isinstance(there, str) and there in row.values:
            values[name] = row.values[there]
    return Row(row.file, row.line, values)


def _look_up(texts: Texts, corpus: Path, wanted: set[str], counts: Counter[str]) -> None:
    """The wanted documents of a corpus: of BRIGHT or a folder of its domains, of a judged set, of files."""
    inner = corpus / "documents"
    if is_judged(corpus) and not inner.is_dir():
        for part in judged_files(corpus, None):
            texts.add(part.documents(), part.domain, wanted)
    elif corpus.is_dir():
        domains = split_files(inner if inner.is_dir() else corpus)
        if not domains:
            raise BadData(f"{corpus} has no documents that can be read")
        for domain, files in domains.items():
            for file in files:
                texts.add(read_texts(file), domain, wanted)
    else:
        texts.add(read_texts(corpus), "", wanted)
    counts["ids with several texts"] += texts.ambiguous()
    counts["ids repeated in a domain with another text"] += texts.repeated


def _ids_of(row: Row, column: str) -> list[str]:
    found = row.values.get(column)
    return [str(name) for name in (found if isinstance(found, list) else [found]) if name is not None]


def _named(rows: Iterator[Row | Reject]) -> set[str]:
    return {name for row in rows if isinstance(row, Row) for column in _IDS for name in _ids_of(row, column)}


def _with_texts(row: Row, texts: Texts, counts: Counter[str]) -> Row:
    """The record with passages in place of their ids; ids of no document are counted and left out."""
    values = dict(row.values)
    for column, passages in _IDS.items():
        found = []
        for name in _ids_of(row, column):
            known = texts.of(name)
            counts["mapped from an id" if known else "an id of no document"] += 1
            found += [{"docid": name, "text": known[0]}] if known else []
        values.pop(column, None)
        values[passages] = found
    return Row(row.file, row.line, values)
