"""One record of whatever shape -> training rows: a query, a document that answers it, documents that do not.

Understood: columns of many names, lists and numbered ``negative_1`` columns, FlagEmbedding's ``pos``, ``neg``
and ``prompt``, passages {title, text} as Tevatron has them, and pairs of [instruction, text] as ReasonIR has
them.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from core.data.readers import Reject, Row, check_text

QUERY_NAMES = ("query", "anchor", "question", "sentence1", "query_text")
POSITIVE_NAMES = (
    "positive",
    "pos",
    "positives",
    "positive_passages",
    "answer",
    "document",
    "passage",
    "sentence2",
)
NEGATIVE_NAMES = ("negative", "neg", "negatives", "negative_passages")
INSTRUCTION_NAMES = ("instruction", "prompt")
TEXT_NAMES = ("text", "content", "contents", "page_content", "document_text", "body", "passage")
"""What the text of a document is called."""

ID_NAMES = ("_id", "id", "docid", "doc_id", "document_id", "pid", "query_id", "qid", "chunk_id")
DIFFICULTIES = {"easy", "medium", "hard"}
_LARGEST_SCORE = 1e30
_NUMBERED = re.compile(r"negative_?\d+")


@dataclass(frozen=True)
class TrainingRow:
    """One query with one positive. ``negatives`` may be empty, and may differ in number from row to row.

    ``scores``, where a teacher has given them, are those of the positive and of each negative, in this order.
    ``difficulty`` and ``negative_ids`` are empty, or have one entry a negative. ``instruction`` says with
    which words of an instruction ``query`` begins.
    """

    query: str
    positive: str
    negatives: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    category: str | None = None
    group: str | None = None
    instruction: str | None = None
    difficulty: list[str] = field(default_factory=list)
    query_id: str | None = None
    positive_id: str | None = None
    negative_ids: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Text:
    text: str
    id: str | None = None


def parse_row(row: Row) -> Iterator[TrainingRow | Reject]:
    """The training rows of one record, or the reason why there are none."""
    values = row.values
    try:
        query, instruction = _query(values)
        positives = _texts(_first(values, POSITIVE_NAMES, "positive"))
        negatives = [
            text
            for name in [*NEGATIVE_NAMES, *sorted(filter(_NUMBERED.fullmatch, values))]
            if values.get(name) is not None
            for text in _texts(values[name])
        ]
        positive_scores, negative_scores = _scores(values, len(positives), len(negatives))
        levels = _difficulty(values.get("difficulty"), len(negatives))
        names = ("category", "group", "query_id", "positive_id")
        labels = {name: _label(values, name) for name in names}
    except ValueError as error:
        yield Reject(row.file, row.line, str(error))
        return
    if not query:
        yield Reject(row.file, row.line, "the query is empty")
        return
    if not positives:
        yield Reject(row.file, row.line, "there is no positive")
        return
    # A document cannot answer a query and not answer it.
    answers = {item.text for item in positives}
    kept = [index for index, item in enumerate(negatives) if item.text not in answers]
    said = values.get("negative_ids")
    known = said if isinstance(said, list) and len(said) == len(negatives) else [None] * len(negatives)
    ids = [negatives[index].id or str(known[index] or "") for index in kept]
    for index, positive in enumerate(positives):
        scores = [positive_scores[index], *(negative_scores[i] for i in kept)] if positive_scores else []
        yield TrainingRow(
            query,
            positive.text,
            [negatives[i].text for i in kept],
            scores if len(scores) == 1 + len(kept) else [],
            labels["category"],
            labels["group"],
            instruction,
            [levels[i] for i in kept] if levels else [],
            labels["query_id"],
            positive.id or (labels["positive_id"] if len(positives) == 1 else None),
            ids if any(ids) else [],
        )


def _query(values: dict[str, Any]) -> tuple[str, str | None]:
    """The query as one text, and which words of an instruction it begins with."""
    parts = [item.text for item in _texts(_first(values, QUERY_NAMES, "query"))]
    instruction = next((values[name] for name in INSTRUCTION_NAMES if values.get(name)), None)
    if instruction is not None:
        if not isinstance(instruction, str):
            raise ValueError(f"an instruction is a text, not {str(instruction)[:40]!r}")
        instruction = check_text(instruction).strip() or None
    query = " ".join(part.strip() for part in parts)
    if instruction and query and not query.startswith(instruction):
        query = f"{instruction} {query}"
    return query, instruction


def _label(values: dict[str, Any], name: str) -> str | None:
    value = values.get(name)
    return check_text(str(value)) if isinstance(value, str | int) and str(value).strip() else None


def _difficulty(value: Any, negatives: int) -> list[str]:
    """One a negative; one word of the whole row is that of each. Other words mean something else: none."""
    levels = [value] * negatives if isinstance(value, str) else value
    if not isinstance(levels, list) or not all(isinstance(level, str) for level in levels):
        return []
    levels = [level.lower() for level in levels]
    if not set(levels) <= DIFFICULTIES:
        return []
    if levels and len(levels) != negatives:
        raise ValueError(f"{len(levels)} difficulties stand beside {negatives} negatives")
    return levels


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
        number = isinstance(item, int | float) and not isinstance(item, bool)
        if not number or abs(item) > _LARGEST_SCORE or not math.isfinite(item):
            raise ValueError(f"a score is a number, not {str(item)[:40]!r}")
    return [float(item) for item in items]


def _first(values: dict[str, Any], names: tuple[str, ...], meaning: str) -> Any:
    for name in names:
        if name in values:
            return values[name]
    raise ValueError(
        f"no {meaning} column (one of {', '.join(names)}); the columns are {', '.join(values) or 'none'}"
    )


def _texts(value: Any) -> list[_Text]:
    """A text, a passage {title, text} or a list of them, without the empty ones."""
    if value is None:
        return []
    return [
        item for each in (value if isinstance(value, list) else [value]) if (item := _text(each)).text.strip()
    ]


def _text(value: Any) -> _Text:
    if isinstance(value, str):
        return _Text(check_text(value))
    if isinstance(value, dict) and any(name in value for name in TEXT_NAMES):
        return _Text(document_text(value), id_of(value))
    if isinstance(value, list) and len(value) == 2 and all(isinstance(part, str) for part in value):
        return _Text(check_text(" ".join(part for part in value if part.strip())))
    raise ValueError(f"a text is needed where {type(value).__name__} {str(value)[:40]!r} stands")


def document_text(values: dict[str, Any]) -> str:
    """A document's title, where it has one, and its text, each on a line of its own. Raises `ValueError`."""
    name = next((name for name in TEXT_NAMES if name in values), "text")
    parts = [part for part in (values.get("title"), values.get(name)) if part not in (None, "", "-")]
    if not all(isinstance(part, str) for part in parts):
        raise ValueError(f"title and {name} must be text")
    return "\n".join(check_text(part) for part in parts)


def id_of(values: dict[str, Any]) -> str | None:
    """What a document or a query is called."""
    found = next((values[name] for name in ID_NAMES if values.get(name) is not None), None)
    return None if found is None or isinstance(found, list | dict) else str(found)
