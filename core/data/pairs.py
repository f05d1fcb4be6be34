"""Training rows: a query, a document that answers it, and documents that do not.

One canonical row comes out, whatever the columns were called. FlagEmbedding's ``pos``/``neg`` lists,
numbered ``negative_1`` columns and BEIR folders are all understood.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.data.beir import is_beir, read_beir
from core.data.readers import Reject, Row, check_text, read_rows
from core.errors import BadData

QUERY_NAMES = ("query", "anchor", "question", "sentence1")
POSITIVE_NAMES = ("positive", "pos", "positives", "answer", "document", "passage", "sentence2")
NEGATIVE_NAMES = ("negative", "neg", "negatives")
DATASET_FACTS = "dataset.json"
"""Its presence makes a folder a prepared dataset: see `core.data.dataset`."""

_NUMBERED = re.compile(r"^negative_?\d+$")


@dataclass(frozen=True)
class TrainingRow:
    """One query with one positive. ``negatives`` may be empty, and may differ in number from row to row.

    ``scores``, where a teacher has given them, are those of the positive and of each negative, in this order.
    """

    query: str
    positive: str
    negatives: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    category: str | None = None
    group: str | None = None


def read_pairs(
    path: Path, split: str | None = None, columns: dict[str, str] | None = None
) -> Iterator[TrainingRow | Reject]:
    """Every training row of a file, a prepared dataset or a BEIR folder.

    A record with several positives makes several rows. ``columns`` says what a file calls query, positive,
    negatives, scores, category or group, where that is unusual.
    """
    if is_dataset(path):
        from core.data.dataset import read_split  # Parquet's library is the worker's

        yield from read_split(path, split or "train")
        return
    if is_beir(path):
        dataset = read_beir(path, split or "train")
        for query_id, judged in dataset.qrels.items():
            for document_id, grade in judged.items():
                if grade > 0:
                    yield TrainingRow(dataset.queries[query_id], dataset.corpus[document_id])
        return
    if path.is_dir():
        raise BadData(f"{path} is neither a prepared dataset nor a BEIR folder (corpus.jsonl, queries.jsonl)")
    if split is not None:
        raise BadData(f"{path.name} is one file: it has no split {split!r}")
    for row in read_rows(path):
        if isinstance(row, Reject):
            yield row
        else:
            yield from parse_row(_renamed(row, columns) if columns else row)


def is_dataset(path: Path) -> bool:
    """Whether a folder is a prepared dataset."""
    return (path / DATASET_FACTS).is_file()


def _renamed(row: Row, columns: dict[str, str]) -> Row:
    """The record with its columns called as they are here; what else is called so steps aside."""
    values = {name: value for name, value in row.values.items() if name not in columns}
    for name, there in columns.items():
        if there in row.values:
            values[name] = row.values[there]
    return Row(row.file, row.line, values)


def parse_row(row: Row) -> Iterator[TrainingRow | Reject]:
    """The training rows of one record, or the reason why there are none."""
    values = row.values
    try:
        query = _texts(_first(values, QUERY_NAMES, "query"))
        positives = _texts(_first(values, POSITIVE_NAMES, "positive"))
        negatives = [
            text
            for name in [*NEGATIVE_NAMES, *sorted(filter(_NUMBERED.match, values))]
            if values.get(name) is not None
            for text in _texts(values[name])
        ]
        positive_scores, negative_scores = _scores(values, len(positives), len(negatives))
    except ValueError as error:
        yield Reject(row.file, row.line, str(error))
        return
    joined = " ".join(query)
    if not joined:
        yield Reject(row.file, row.line, "the query is empty")
    elif not positives:
        yield Reject(row.file, row.line, "there is no positive")
    else:
        # A document cannot answer a query and not answer it.
        kept = [index for index, text in enumerate(negatives) if text not in positives]
        negatives = [negatives[index] for index in kept]
        negative_scores = [negative_scores[index] for index in kept] if negative_scores else []
        for index, positive in enumerate(positives):
            scores = [positive_scores[index], *negative_scores] if positive_scores else []
            yield TrainingRow(
                joined, positive, negatives, scores, _label(values, "category"), _label(values, "group")
            )


def _label(values: dict[str, Any], name: str) -> str | None:
    value = values.get(name)
    return str(value) if isinstance(value, str | int) and str(value).strip() else None


def _scores(values: dict[str, Any], positives: int, negatives: int) -> tuple[list[float], list[float]]:
    """A teacher's scores: FlagEmbedding's ``pos_scores`` and ``neg_scores``, or one list ``scores``."""
    found = _numbers(values.get("scores"))
    if not found:
        own, others = _numbers(values.get("pos_scores")), _numbers(values.get("neg_scores"))
        if not own or (negatives and not others):
            return [], []  # half of them teach nothing
        found = own + others
    if len(found) != positives + negatives:
        raise ValueError(f"{len(found)} scores stand beside {positives + negatives} documents")
    return found[:positives], found[positives:]


def _numbers(value: Any) -> list[float]:
    items = value if isinstance(value, list) else [] if value is None else [value]
    for item in items:
        if isinstance(item, bool) or not isinstance(item, int | float) or not math.isfinite(item):
            raise ValueError(f"a score is a number, not {str(item)[:40]!r}")
    return [float(item) for item in items]


def _first(values: dict[str, Any], names: tuple[str, ...], meaning: str) -> Any:
    for name in names:
        if name in values:
            return values[name]
    raise ValueError(
        f"no {meaning} column (one of {', '.join(names)}); the columns are {', '.join(values) or 'none'}"
    )


def _texts(value: Any) -> list[str]:
    """A text or a list of texts, without the empty ones."""
    if value is None:
        return []
    items = value if isinstance(value, list) else [value]
    for item in items:
        if not isinstance(item, str):
            raise ValueError(f"a text is needed where {type(item).__name__} {str(item)[:40]!r} stands")  # noqa: TRY004
    return [check_text(item) for item in items if item.strip()]
