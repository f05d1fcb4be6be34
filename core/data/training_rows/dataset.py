"""The forms that every prepared dataset has: Parquet files, and a page that describes them. Nothing in it
points anywhere else.

``dataset.json`` (`core.data.training_rows.page`); ``rejects.jsonl`` when something was left out; and by type

- triplets: ``SPLIT.parquet`` with the columns of `SCHEMA`;
- retrieval: ``corpus.parquet`` and ``queries.parquet`` with those of `TEXTS`, ``qrels/SPLIT.parquet`` with
  `QRELS`;
- chunks: ``chunks.parquet`` with those of `CHUNKS`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from core.data.io.lookup import Texts
from core.data.retrieval_sets.judgments import Judging, OnMissing, RetrievalSet
from core.data.rows.remarks import first_judgments, first_texts
from core.data.rows.row import Judgment
from core.data.training_rows import table
from core.data.training_rows.page import DatasetPage, read_page
from core.data.training_rows.pairs import TrainingRow
from core.errors import BadData
from core.native_errors import unreadable

_ROWS = 4096
_TEXT = pa.large_string()
_LISTS = ("negatives", "scores", "difficulty", "negative_ids")

SCHEMA = pa.schema(
    [
        *table.SCHEMA,
        ("category", _TEXT),
        ("group", _TEXT),
        ("instruction", _TEXT),
        ("query_id", _TEXT),
        ("positive_id", _TEXT),
        ("negative_ids", pa.large_list(_TEXT)),
    ]
)
"""Triplets: what training keeps of a row, its labels and names. ``query`` begins with ``instruction``;
``difficulty`` and ``negative_ids`` are empty, or have one entry a negative."""

TEXTS = pa.schema(
    [("id", _TEXT), ("text", _TEXT), ("category", _TEXT), ("excluded_ids", pa.large_list(_TEXT))]
)
"""``excluded_ids``: documents that the ranking of a query must leave out."""

QRELS = pa.schema([("query_id", _TEXT), ("document_id", _TEXT), ("grade", pa.int32())])

CHUNKS = pa.schema(
    [
        ("id", _TEXT),
        ("text", _TEXT),
        ("title", _TEXT),
        ("header_path", pa.large_list(_TEXT)),
        ("document", _TEXT),
        ("category", _TEXT),
        ("number", pa.int32()),
        ("start", pa.int64()),
        ("end", pa.int64()),
        ("queries", pa.large_list(_TEXT)),
    ]
)
"""``start`` and ``end`` are characters of the document behind its front matter; lines, for Python."""


class ParquetFile:
    """Writes rows to a Parquet file, a few thousand at a time. The same rows make the same bytes."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._schema = schema
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")
        self._waiting: list[pa.Table] = []
        self._rows: list[dict[str, Any]] = []
        self._held = self.rows = 0

    def add(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        if len(self._rows) == _ROWS:
            self._turn()

    def add_table(self, rows: pa.Table) -> None:
        self._turn()
        self._waiting.append(rows)
        self._held += rows.num_rows
        self.rows += rows.num_rows
        if self._held >= _ROWS:
            self._flush()

    def _turn(self) -> None:
        if self._rows:
            rows, self._rows = self._rows, []
            self.add_table(pa.Table.from_pylist(rows, schema=self._schema))

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.concat_tables(self._waiting))
            self._waiting, self._held = [], 0

    def close(self) -> None:
        self._turn()
        self._flush()
        self._writer.close()

    def __enter__(self) -> "ParquetFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_split(folder: Path, split: str) -> Iterator[TrainingRow]:
    """The training rows of a split, streamed: of a retrieval set a row for each relevant judgment.

    Raises `BadData` when there is no such split, or nothing in it, and for chunks.
    """
    page = read_page(folder)
    _check_split(page, split)
    if page.type == "retrieval":
        yield from _judged_rows(folder, split)
        return
    for values in read_parquet(folder / f"{split}.parquet"):
        known: dict[str, Any] = {name: values.get(name) for name in SCHEMA.names}
        yield TrainingRow(**{**known, **{name: known[name] or [] for name in _LISTS}})


def read_retrieval_split(folder: Path, split: str, on_missing: OnMissing = "fail") -> RetrievalSet | None:
    """A split of a retrieval set; None for triplets, of which one can be made. Raises `BadData`."""
    page = read_page(folder)
    _check_split(page, split)
    if page.type != "retrieval":
        return None
    found = RetrievalSet()
    corpus = ((row["id"], row["text"]) for row in read_parquet(folder / "corpus.parquet"))
    found.corpus = dict(first_texts(corpus, "document", found.remarks))
    asked = {row["id"]: row for row in read_parquet(folder / "queries.parquet")}
    texts = {name: row["text"] for name, row in asked.items()}
    judging = Judging(found, folder.name, on_missing)
    qrels = folder / "qrels" / f"{split}.parquet"
    judgments = (
        Judgment(row["query_id"], row["document_id"], row["grade"], f"qrels/{qrels.name}", number)
        for number, row in enumerate(read_parquet(qrels), 1)
    )
    for judgment in first_judgments(judgments, found.remarks):
        judging.add(judgment, texts)
    judging.close()
    for name in found.queries:
        if category := asked[name]["category"]:
            found.categories[name] = category
        if excluded := asked[name]["excluded_ids"]:
            found.excluded[name] = set(excluded)
    return found


def _check_split(page: DatasetPage, split: str) -> None:
    if page.type == "chunks":
        raise BadData("this dataset is of passages alone: make triplets of it (kind prepare, task triplets)")
    if not page.splits.get(split):
        have = ", ".join(name for name, rows in page.splits.items() if rows)
        raise BadData(f"this dataset has no split {split!r}; it has {have or 'none'}")


def _judged_rows(folder: Path, split: str) -> Iterator[TrainingRow]:
    queries = {row["id"]: row for row in read_parquet(folder / "queries.parquet")}
    relevant = [row for row in read_parquet(folder / "qrels" / f"{split}.parquet") if row["grade"] > 0]
    with Texts() as documents:
        corpus = read_parquet(folder / "corpus.parquet")
        documents.add(
            ((row["id"], row["text"]) for row in corpus), wanted={row["document_id"] for row in relevant}
        )
        for row in relevant:
            query = queries[row["query_id"]]
            yield TrainingRow(
                query["text"],
                documents.of(row["document_id"])[0],
                category=query["category"],
                query_id=row["query_id"],
                positive_id=row["document_id"],
            )


def read_parquet(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file of ours, streamed. Raises `BadData`."""
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_ROWS):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError, UnicodeError) as error:
        raise unreadable(f"{path.name} is not a readable Parquet file", error) from error
