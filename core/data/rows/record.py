"""One record of whatever shape -> training rows: a query, a document that answers it, documents that do not.

Shapes that are read: columns of many names (`core.data.rows.columns`), lists, numbered columns (negative_1),
FlagEmbedding's ``pos``, ``neg`` and ``prompt``, passages {title, text} as Tevatron and DPR have them, pairs
of [instruction, text] as ReasonIR has them, and lists that a CSV file holds as text.
"""

import ast
import io
import json
import math
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from core.data.rows.columns import ID_NAMES, TEXT_NAMES, Roles, assign_roles, example_of
from core.data.rows.reading import LISTS, NO_VALUES, NUMBERS, Reading
from core.data.rows.row import Reject, Row, check_text

DIFFICULTIES = {"easy", "medium", "hard"}
_LARGEST_SCORE = 1e30
_MOST_SHAPES = 1000


@dataclass(frozen=True)
class TrainingRow:
    """One query with one positive. ``negatives`` may be empty, and may differ in number from row to row.

    ``scores`` are a teacher's, of the positive and of each negative, in this order; or, for a loss that
    learns pairs with scores, the pair's own. ``difficulty`` and ``negative_ids`` are empty, or have one entry
    a negative. ``instruction`` is the part of an instruction with which ``query`` begins.
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


class RecordParser:
    """Turns the records of a source into training rows, and reports the roles of their columns."""

    def __init__(self, reading: Reading | None = None) -> None:
        self.reading = reading or Reading()
        self._label = getattr(self.reading.labels, "column", None)
        self._known: dict[tuple[str, ...], Roles] = {}
        self._reported: Roles | None = None

    def peek(self, row: Row) -> Roles:
        """The roles of a record's columns."""
        columns = tuple(row.values)
        roles = self._known.get(columns)
        if roles is None:
            roles = assign_roles(columns, self.reading.columns, self._label)
            if self.reading.labels == "ignore":
                roles = _ignoring_labels(roles)
            if len(self._known) < _MOST_SHAPES:
                self._known[columns] = roles
        return roles

    def roles(self, row: Row) -> Roles:
        """The same, of a record that is read: its columns are reported as read or unused."""
        roles = self.peek(row)
        if roles is not self._reported:
            for role, found in roles.by_role().items():
                for column in found:
                    self.reading.report.used(role, column)
            self._reported = roles
        self.reading.report.unused.update(roles.unused)
        return roles

    def rows(self, row: Row) -> Iterator[TrainingRow | Reject]:
        """The training rows of one record, or the reason why there are none. Labels are the caller's."""
        roles = self.roles(row)
        try:
            yield from self._rows(row, roles)
        except ValueError as error:
            yield Reject(row.file, row.line, str(error))

    def _rows(self, row: Row, roles: Roles) -> list[TrainingRow]:
        values = self._with_lists(row, roles) if row.cells else row.values
        query, instruction = self._query(row, roles)
        if roles.positive is None:
            raise ValueError(self.missing("positive", row, roles))
        positives = self._texts(values[roles.positive])
        negatives = [text for name in roles.negatives for text in self._texts(values[name])]
        positive_scores, negative_scores = _scores(values, roles, positives, negatives)
        levels = _difficulty(_value(values, roles.difficulty), len(negatives))
        answered = [index for index, item in enumerate(positives) if item is not None]
        if not query:
            raise ValueError("the query is empty")
        if not answered:
            raise ValueError("there is no positive")
        # A document cannot answer a query and not answer it.
        answers = {item.text for item in positives if item is not None}
        kept = {
            index: item
            for index, item in enumerate(negatives)
            if item is not None and item.text not in answers
        }
        given = _value(values, roles.negative_ids)
        known = given if isinstance(given, list) and len(given) == len(negatives) else [None] * len(negatives)
        ids = [item.id or str(known[index] or "") for index, item in kept.items()]
        positive_id = _label(_value(values, roles.positive_id))
        rows = []
        for index in answered:
            positive = positives[index]
            assert positive is not None
            scores = [positive_scores[index], *(negative_scores[i] for i in kept)] if positive_scores else []
            rows.append(
                TrainingRow(
                    query,
                    positive.text,
                    [item.text for item in kept.values()],
                    scores if len(scores) == 1 + len(kept) else [],
                    _label(_value(values, roles.category)),
                    _label(_value(values, roles.group)),
                    instruction,
                    [levels[i] for i in kept] if levels else [],
                    _label(_value(values, roles.query_id)),
                    positive.id or (positive_id if len(answered) == 1 else None),
                    ids if any(ids) else [],
                )
            )
        return rows

    def _query(self, row: Row, roles: Roles) -> tuple[str, str | None]:
        """The query as one text, and the words of an instruction that it begins with."""
        if roles.query is None:
            raise ValueError(self.missing("query", row, roles))
        parts = [item.text for item in self._texts(row.values[roles.query]) if item is not None]
        instruction = next((row.values[name] for name in roles.instruction if row.values[name]), None)
        if instruction is not None:
            if not isinstance(instruction, str):
                raise ValueError(f"an instruction is a text, not {str(instruction)[:40]!r}")
            instruction = check_text(instruction).strip() or None
        query = " ".join(part.strip() for part in parts)
        if instruction and query and not query.startswith(instruction):
            query = f"{instruction} {query}"
        return query, instruction

    def missing(self, role: str, row: Row, roles: Roles) -> str:
        """The sentence for a file in which a role has no column, with the lines that would name it."""
        columns = ", ".join(str(name) for name in row.values) or "none"
        if asked := self.reading.columns.get(role):
            return f"columns.{role} is {asked!r}, and the columns are {columns}"
        if row.cells and not roles.by_role() and any(len(name.split()) > 2 for name in row.values):
            numbers = ", negatives: 3" if len(row.values) > 2 else ""
            return (
                f"no {role} column is known by its name; the first line is {columns[:200]}. If the file has "
                f"no header, give the columns by number: columns: {{query: 1, positive: 2{numbers}}}"
            )
        example = example_of(row.values, roles)
        return f"no {role} column is known by its name; the columns are {columns}. Name them: {example}"

    def _with_lists(self, row: Row, roles: Roles) -> dict[str, Any]:
        """The record of a CSV file, with the lists that its cells hold as text, and without the words for no
        value. A query is never a list."""
        values = dict(row.values)
        for column in filter(None, (roles.query, roles.positive, *roles.negatives)):
            if isinstance(cell := values[column], str) and cell.strip() in _NO_VALUE:
                values[column] = None
                self.reading.counts[NO_VALUES] += 1
        for role, columns in roles.by_role().items():
            for column in columns if role not in ("query", "instruction") else ():
                before = values[column]
                values[column] = found = list_in_text(before)
                if found is not before:
                    self.reading.counts[LISTS] += 1
        return values

    def _texts(self, value: Any) -> list[_Text | None]:
        """A text, a passage {title, text} or a list of them. None stands for an empty or missing one."""
        items = value if isinstance(value, list) else [value]
        return [None if _is_missing(item) else self._text(item) for item in items]

    def _text(self, value: Any) -> _Text | None:
        if isinstance(value, str):
            return _Text(check_text(value)) if value.strip() else None
        if isinstance(value, int | float) and not isinstance(value, bool):
            self.reading.counts[NUMBERS] += 1
            return _Text(str(value))
        if isinstance(value, dict) and any(name in value for name in TEXT_NAMES):
            text = document_text(value)
            return _Text(text, id_of(value)) if text.strip() else None
        if isinstance(value, list) and len(value) == 2 and all(isinstance(part, str) for part in value):
            text = check_text(" ".join(part for part in value if part.strip()))
            return _Text(text) if text.strip() else None
        raise ValueError(f"a text is needed where {type(value).__name__} {str(value)[:40]!r} stands")


def _scores(
    values: dict[str, Any], roles: Roles, positives: list[_Text | None], negatives: list[_Text | None]
) -> tuple[list[float], list[float]]:
    """A teacher's scores of each positive and negative: FlagEmbedding's ``pos_scores`` and ``neg_scores``, or
    one list ``scores``. They may count empty texts or leave them out."""
    found = _numbers(_value(values, roles.scores))
    if not found:
        own = _numbers(_value(values, roles.pos_scores))
        others = _numbers(_value(values, roles.neg_scores))
        if not own or (any(negatives) and not others):
            return [], []  # half of them teach nothing
        found = own + others
    documents = [*positives, *negatives]
    present = [index for index, item in enumerate(documents) if item is not None]
    if len(found) == len(present) < len(documents):
        given = dict(zip(present, found, strict=True))
        found = [given.get(index, math.nan) for index in range(len(documents))]
    if len(found) != len(documents):
        raise ValueError(f"{len(found)} scores stand beside {len(documents)} documents")
    return found[: len(positives)], found[len(positives) :]


def _ignoring_labels(roles: Roles) -> Roles:
    """Labels and scores of pairs count as unused columns."""
    ignored = tuple(column for column in (roles.label, roles.score) if column is not None)
    return Roles(**{**vars(roles), "label": None, "score": None, "unused": (*roles.unused, *ignored)})


def parse_row(row: Row) -> Iterator[TrainingRow | Reject]:
    """The training rows of one record in the usual form, or the reason why there are none."""
    return RecordParser().rows(row)


def _value(values: dict[str, Any], column: str | None) -> Any:
    return None if column is None else values[column]


_NO_VALUE = frozenset({"NaN", "nan", "NAN", "null", "NULL", "None", "<NA>", "N/A", "n/a"})
"""What pandas, databases, Python and spreadsheets write into a cell of a text file that has no value."""


def _is_missing(value: Any) -> bool:
    """None, and NaN, as which pandas writes an empty cell."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def list_in_text(value: Any) -> Any:
    """A list of texts or numbers that a CSV cell holds as text, as JSON or Python write it; else the value.

    Raises `ValueError` for what begins and ends as a list of texts and cannot be read: its items would be
    taken for one text.
    """
    if not isinstance(value, str):
        return value
    text = value.strip()
    if not (text.startswith("[") and text.endswith("]")):
        return value
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        if not text[1:].lstrip().startswith(("'", '"')):
            return value
        found = _python_list(text)
    if not isinstance(found, list):
        return value
    if all(isinstance(item, str | None) for item in found):
        return found
    numbers = all(isinstance(item, int | float) and not isinstance(item, bool) for item in found)
    # [1] alone is more often a footnote's mark than a list.
    return found if numbers and (len(found) > 1 or "." in text) else value


def _python_list(text: str) -> Any:
    """The value of a Python list of texts. Raises `ValueError` for numpy's, which has no commas."""
    problem = f"{text[:40]!r} looks like a list and cannot be read as JSON or Python: write lists as JSON"
    try:
        found = ast.literal_eval(text)
        tokens = [
            token.type
            for token in tokenize.generate_tokens(io.StringIO(text).readline)
            if token.type not in (tokenize.NL, tokenize.NEWLINE, tokenize.COMMENT)
        ]
    except (ValueError, SyntaxError, RecursionError, MemoryError, tokenize.TokenError) as error:
        raise ValueError(problem) from error
    # 'a' 'b' is one text to Python, and two to numpy, which prints arrays so.
    if any(one == other == tokenize.STRING for one, other in pairwise(tokens)):
        raise ValueError(problem)
    return found


def _label(value: Any) -> str | None:
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


def _numbers(value: Any) -> list[float]:
    items = value if isinstance(value, list) else [] if value is None else [value]
    for item in items:
        number = isinstance(item, int | float) and not isinstance(item, bool)
        if not number or abs(item) > _LARGEST_SCORE or not math.isfinite(item):
            raise ValueError(f"a score is a number, not {str(item)[:40]!r}")
    return [float(item) for item in items]


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
