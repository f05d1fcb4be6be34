"""Training rows of files, folders, prepared datasets and judged sets: one canonical row, whatever they look
like."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from core.data.distillation import is_scored_by_ids, scored_rows
from core.data.folders import files_of_split, split_files
from core.data.judged import is_judged, judged_files, judged_pairs, read_texts
from core.data.lookup import Texts
from core.data.readers import Reject, Row, read_rows
from core.data.reasonir import ReasonIR, is_reasonir, wanted_ids
from core.data.record import TrainingRow, parse_row
from core.data.remarks import Irregularity, Level, Remarks
from core.errors import BadData

__all__ = ["DATASET_FACTS", "Reading", "TrainingRow", "is_dataset", "read_pairs", "rows_of"]

DATASET_FACTS = "dataset.json"
"""Its presence makes a folder a prepared dataset: see `core.data.dataset`."""

_LOOKED_AT = 100
"""Records that tell which shape they all have."""

_IDS = {"positive_document_ids": "positive_passages", "negative_document_ids": "negative_passages"}
"""Tevatron's rows that name documents, and what they become when these are looked up."""


_AMBIGUOUS = ("ids with several texts", "ids repeated in a domain with another text")
"""Labels of counts."""


@dataclass
class Reading:
    """How to read a source, where it is not the usual way. ``counts`` grow by what was done with pairs."""

    split: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    encoding: str | None = None
    long: bool = False  # BRIGHT's whole pages
    reasonir: bool | None = None  # None: as the first records look
    corpus: Path | None = None
    counts: Counter[str] = field(default_factory=Counter)
    remarks: Remarks = field(default_factory=Remarks)

    def irregularities(self) -> Iterator[tuple[str, Level]]:
        """A sentence and its level for each kind of id that came twice."""
        yield from self.remarks.sentences()
        for label in _AMBIGUOUS:
            if self.counts[label] and not self.remarks.count(Irregularity.DOCUMENT_CONFLICT):
                yield f"{label}: {self.counts[label]:,}. The first text of an id is used.", "warning"


def read_pairs(
    path: Path, split: str | None = None, reading: Reading | None = None
) -> Iterator[TrainingRow | Reject]:
    """Every training row of a file, of a folder of files, of a prepared dataset or of a judged set.

    A record with several positives makes several rows. Raises `BadData`.
    """
    reading = reading or Reading(split)
    if is_dataset(path):
        from core.data.dataset import read_split  # Parquet's library is the worker's

        yield from read_split(path, reading.split or "train")
        return
    if is_judged(path):
        yield from judged_pairs(
            path,
            reading.split,
            long=reading.long,
            encoding=reading.encoding,
            counts=reading.counts,
            remarks=reading.remarks,
        )
        return
    if is_scored_by_ids(path):
        yield from scored_rows(path, reading.split, reading.counts, reading.encoding)
        return
    files = rows_of(path, reading.split)
    first = [row.values for row in islice(_rows(files, reading), _LOOKED_AT) if isinstance(row, Row)]
    has_ids = any(_IDS.keys() & values.keys() for values in first)
    with ExitStack() as stack:
        if reading.reasonir or (reading.reasonir is None and any(map(is_reasonir, first))):
            texts = None
            if reading.corpus is not None:
                texts = stack.enter_context(Texts())
                _look_up(texts, reading.corpus, wanted_ids(_rows(files, reading)), reading.counts)
            parser = ReasonIR(texts, reading.counts)
            parse = parser.rows
        elif has_ids:
            if reading.corpus is None:
                raise BadData(f"{path.name} names documents by their ids: say where they are (corpus)")
            texts = stack.enter_context(Texts())
            _look_up(texts, reading.corpus, _named(_rows(files, reading)), reading.counts)
            found = texts

            def parse(row: Row) -> Iterator[TrainingRow | Reject]:
                return parse_row(_with_texts(row, found, reading.counts))
        else:
            parse = parse_row
        for row in _rows(files, reading):
            if isinstance(row, Reject):
                yield row
            else:
                yield from parse(_renamed(row, reading.columns) if reading.columns else row)


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
        yield from read_rows(file, reading.encoding)


def _renamed(row: Row, columns: dict[str, str]) -> Row:
    """The record with its columns called as they are here; what else is called so steps aside."""
    values = {name: value for name, value in row.values.items() if name not in columns}
    for name, there in columns.items():
        if there in row.values:
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
