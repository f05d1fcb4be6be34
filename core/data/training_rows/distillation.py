"""A teacher's scores by ids: rows of ``query_id``, ``document_ids`` and ``scores`` beside files of queries
and of documents, as late-interaction models are distilled from (PyLate's and ColBERTv2's sets).
"""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from core.data.io.folders import files_of_split, split_files
from core.data.io.lookup import Texts
from core.data.io.readers import read_rows
from core.data.retrieval_sets.judged_folders import read_texts
from core.data.rows.reading import ReadingReport
from core.data.rows.record import TrainingRow, parse_row
from core.data.rows.row import Reject, Row

_COLUMNS = {"query_id", "document_ids", "scores"}
_QUERIES = ("queries",)
_DOCUMENTS = ("documents", "corpus", "collection")


def is_scored_by_ids(path: Path) -> bool:
    """Whether a folder has files of queries and documents, and others whose rows name them."""
    if not path.is_dir():
        return False
    found = split_files(path)
    if not (_of(found, _QUERIES) and _of(found, _DOCUMENTS)):
        return False
    others = [files for name, files in found.items() if name not in (*_QUERIES, *_DOCUMENTS)]
    first = next((row for files in others for row in read_rows(files[0])), None)
    return isinstance(first, Row) and first.values.keys() >= _COLUMNS


def scored_rows(
    path: Path, split: str | None, report: ReadingReport, encoding: str | None = None
) -> Iterator[TrainingRow | Reject]:
    """The document of the highest score is the positive; scores go with it. Raises `BadData`."""
    splits = split_files(path)
    rows = files_of_split(path, split or "train")
    with ExitStack() as stack:
        queries, documents = (stack.enter_context(Texts()) for _ in range(2))
        for texts, names in ((queries, _QUERIES), (documents, _DOCUMENTS)):
            for file in _of(splits, names):
                texts.add(read_texts(file, encoding, report=report), "", None)
        for file in rows:
            for row in read_rows(file, encoding, report=report):
                if isinstance(row, Reject):
                    yield row
                else:
                    report.unused.update(row.values.keys() - _COLUMNS)
                    yield from _with_texts(row, queries, documents, report.counts)


def _of(splits: dict[str, list[Path]], names: tuple[str, ...]) -> list[Path]:
    return next((splits[name] for name in names if name in splits), [])


def _with_texts(
    row: Row, queries: Texts, documents: Texts, counts: Counter[str]
) -> Iterator[TrainingRow | Reject]:
    query_id = str(row.values.get("query_id"))
    try:
        names, scores = (_list(row.values.get(column)) for column in ("document_ids", "scores"))
        if len(names) != len(scores):
            raise ValueError(f"{len(scores)} scores stand beside {len(names)} documents")
        query = queries.of(query_id)
        if not query:
            raise ValueError(f"there is no query {query_id!r}")
        known = []
        for name, score in zip(names, scores, strict=True):
            text = documents.of(str(name))
            counts["mapped from an id" if text else "an id of no document"] += 1
            if text:
                known.append((float(score), str(name), text[0]))
    except (ValueError, TypeError) as error:
        yield Reject(row.file, row.line, str(error))
        return
    known.sort(key=lambda item: -item[0])
    values: dict[str, Any] = {
        "query": query[0],
        "query_id": query_id,
        "positive": [{"docid": name, "text": text} for _, name, text in known[:1]],
        "negatives": [{"docid": name, "text": text} for _, name, text in known[1:]],
        "scores": [score for score, _, _ in known],
    }
    yield from parse_row(Row(row.file, row.line, values))


def _list(value: Any) -> list[Any]:
    """A list, or one that was written as text."""
    found = json.loads(value) if isinstance(value, str) else value
    if not isinstance(found, list):
        raise TypeError(f"a list is needed where {str(value)[:40]!r} stands")
    return found
