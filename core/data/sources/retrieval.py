"""What a model is evaluated on: a retrieval set, from a BEIR folder or made of a file of pairs."""

import random
from collections.abc import Container, Iterable, Iterator, Sequence, Set
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from core.data.retrieval_sets.judged_folders import is_bright, is_judged, read_judged
from core.data.retrieval_sets.judgments import IdenticalIds, OnMissing, RetrievalSet
from core.data.retrieval_sets.nested import is_retrieval_json, read_retrieval_json
from core.data.retrieval_sets.own_documents import exclude_own_documents, note_excluded_relevant
from core.data.rows.reading import Reading
from core.data.rows.rejects import Rejects
from core.data.rows.row import Reject
from core.data.training_rows.pairs import TrainingRow, is_dataset, read_pairs
from core.errors import BadData


def read_retrieval(
    path: Path,
    split: str | None = None,
    max_reject_share: float = 0.0,
    reading: Reading | None = None,
    *,
    on_missing: OnMissing = "fail",
    identical_ids: IdenticalIds = "auto",
) -> RetrievalSet:
    """The retrieval set at ``path``. For judged and prepared sets the split is ``test`` unless said
    otherwise, for BRIGHT all domains together.

    Of a file of pairs, every distinct query is a query, and every distinct document, negatives included,
    belongs to the corpus; a query's positives are its relevant documents, its negatives are judged as none.

    ``on_missing`` and ``identical_ids`` are those of `core.spec.parts.evaluation.JudgedSource`: every reader
    of a set to rank comes through here, so that all of them leave out the same documents. Raises `BadData`,
    also when more than ``max_reject_share`` of the rows is unreadable: scores over a part of the set would be
    too good.
    """
    reading = reading or Reading(split)
    found = _read_judged(path, reading, on_missing)
    if found is None:
        found = _read_rows(path, reading, max_reject_share)
    note_excluded_relevant(found)
    found.coincidence = exclude_own_documents(found, identical_ids)
    return found


def _read_judged(path: Path, reading: Reading, on_missing: OnMissing) -> RetrievalSet | None:
    """A judged set or a prepared one; None for rows."""
    split = reading.split
    if is_retrieval_json(path):
        return read_retrieval_json(path, reading.encoding, on_missing=on_missing)
    if is_dataset(path):
        from core.data.training_rows.dataset import read_retrieval_split  # Parquet's library is the worker's

        return read_retrieval_split(path, split or "test", on_missing)
    if is_judged(path):
        split = split or (None if is_bright(path) else "test")
        return read_judged(path, split, on_missing=on_missing, report=reading.report)
    return None


def _read_rows(path: Path, reading: Reading, max_reject_share: float) -> RetrievalSet:
    """A set made of training rows."""
    if is_dataset(path):
        reading = replace(reading, split=reading.split or "test")  # with the caller's report
    rejects = Rejects()

    def good() -> Iterator[TrainingRow]:
        for row in read_pairs(path, reading=reading):
            if isinstance(row, Reject):
                rejects.add(row)
            else:
                rejects.kept += 1
                yield row

    found = retrieval_of_rows(good())
    rejects.check(max_reject_share)
    found.rejects = rejects.count
    return found


def retrieval_of_rows(rows: Iterable[TrainingRow], queries: Container[str] | None = None) -> RetrievalSet:
    """Every document of the rows as the corpus; ``queries`` limits who asks, not what can be found."""
    found = RetrievalSet()
    documents: dict[str, str] = {}
    query_ids: dict[str, str] = {}
    for row in rows:
        for text in (row.positive, *row.negatives):
            documents.setdefault(text, f"d{len(documents)}")
        if queries is None or row.query in queries:
            query_id = query_ids.setdefault(row.query, f"q{len(query_ids)}")
            grades = found.qrels.setdefault(query_id, {})
            grades[documents[row.positive]] = 1
            for text in row.negatives:
                grades.setdefault(documents[text], 0)
    found.queries = {query_id: text for text, query_id in query_ids.items()}
    found.corpus = {document_id: text for text, document_id in documents.items()}
    return found


def choose_queries(tables: Sequence[pa.Table], share: float, seed: int) -> set[str]:
    """A share of the distinct queries of all tables: one that stands in two of them is taken from both.

    Which they are depends on the queries and the seed alone, not on the order of the rows. Raises `BadData`
    when none would be taken, or left.
    """
    distinct = sorted({query for table in tables for query in table.column("query").to_pylist()})
    count = round(share * len(distinct))
    if not 0 < count < len(distinct):
        raise BadData(
            f"evaluation.holdout {share:g} of {len(distinct)} queries leaves nothing to "
            f"{'train on' if count else 'evaluate on'}"
        )
    return set(random.Random(seed).sample(distinct, count))  # noqa: S311 - a seeded split, not a secret


def hold_out(table: pa.Table, taken: Set[str]) -> tuple[pa.Table, RetrievalSet]:
    """Takes queries with all of their rows out of a table of training rows.

    Returns the rest, and a retrieval set of the queries that were taken over the documents of all rows.
    """
    column = table.column("query")
    mask = pc.is_in(column, pa.array(sorted(taken), column.type))

    def rows() -> Iterator[TrainingRow]:
        for batch in table.to_batches():
            for row in batch.to_pylist():
                yield TrainingRow(row["query"], row["positive"], row["negatives"])

    return table.filter(pc.invert(mask)), retrieval_of_rows(rows(), taken)
