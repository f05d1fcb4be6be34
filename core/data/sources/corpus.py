"""Every document of whatever may be a corpus: judged and prepared sets, chunks, documents, rows."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from core.data.documents.passages import AS_WRITTEN, read_passages
from core.data.io.readers import read_rows
from core.data.retrieval_sets.judged_folders import is_bright, is_judged, judged_files, read_texts, splits_of
from core.data.retrieval_sets.nested import is_retrieval_json, read_retrieval_json
from core.data.rows.reading import Reading
from core.data.rows.row import Reject, Row
from core.data.sources.formats import is_documents, settle_format
from core.data.training_rows.dataset import read_parquet
from core.data.training_rows.page import read_page
from core.data.training_rows.pairs import TrainingRow, is_dataset, read_pairs


@dataclass(frozen=True)
class CorpusText:
    """``name`` is the document's id, where it has one; ``group`` what it is a part of."""

    name: str | None
    text: str
    group: str | None = None
    category: str | None = None


def has_corpus(path: Path) -> bool:
    """Whether a dataset has a corpus of its own, beside the documents that answer."""
    if is_dataset(path):
        return read_page(path).type == "retrieval"
    return is_judged(path) or is_retrieval_json(path)


CORPUS_ROLES = ("positive", "negatives", "category", "group", "positive_id")
"""Roles of rows' columns that make a corpus."""


def read_corpus(
    path: Path, split: str | None = None, reading: Reading | None = None
) -> Iterator[CorpusText | Reject]:
    """In the order of the files. Rows' documents come as often as they stand there.

    ``split`` is a domain of BRIGHT; other sets have one corpus. Raises `BadData`.
    """
    reading = reading or Reading(split)
    if is_dataset(path) and (kind := read_page(path).type) != "triplets":
        for row in read_parquet(path / ("corpus.parquet" if kind == "retrieval" else "chunks.parquet")):
            yield CorpusText(row["id"], row["text"], row.get("document"), row.get("category"))
    elif not is_dataset(path) and is_judged(path):
        of_split = split if is_bright(path) else next(iter(splits_of(path)))
        rejects: list[Reject] = []
        for files in judged_files(path, of_split, encoding=reading.encoding, report=reading.report):
            for name, text in files.documents(rejects):
                yield CorpusText(name, text, category=files.domain or None)
            yield from rejects
            rejects.clear()
    else:
        yield from _of_files(path, reading)


def _of_files(path: Path, reading: Reading) -> Iterator[CorpusText | Reject]:
    if is_retrieval_json(path):
        for name, text in read_retrieval_json(path, reading.encoding).corpus.items():
            yield CorpusText(name, text)
        return
    form, where = settle_format(path, "auto", rows="query" in reading.columns)
    if not is_documents(form):
        yield from _of_rows(where, reading)
    elif form == "chunks" and _is_beirs(where):
        unreadable: list[Reject] = []
        for name, text in read_texts(where, reading.encoding, unreadable, reading.report):
            yield CorpusText(name, text)
        yield from unreadable
    else:
        for found in read_passages(where, form, None, AS_WRITTEN, reading=reading):
            if isinstance(found, Reject):
                yield found
            else:
                yield CorpusText(found.id, found.text, found.document, found.category)


def _of_rows(path: Path, reading: Reading) -> Iterator[CorpusText | Reject]:
    for row in read_pairs(path, reading=reading):
        if isinstance(row, TrainingRow):
            yield CorpusText(row.positive_id, row.positive, row.group, row.category)
            for text in row.negatives:
                yield CorpusText(None, text)
        else:
            yield row


def _is_beirs(path: Path) -> bool:
    """Whether a file is BEIR's corpus.jsonl without its folder: its titles belong to the texts."""
    if not path.is_file():
        return False
    first = next((row for row in read_rows(path) if isinstance(row, Row)), None)
    return first is not None and "_id" in first.values and "queries" not in first.values
