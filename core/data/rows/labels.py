"""Pairs with a label or a score beside them: which are positives, and what the others are good for.

A pair that is marked as irrelevant is a negative of every row of its query. It may stand anywhere in the
source, so such sources are read twice; the negatives lie on disk meanwhile.
"""

import hashlib
import math
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from core.data.rows.columns import Roles
from core.data.rows.record import RecordParser, TrainingRow
from core.data.rows.row import Reject, Row
from core.errors import BadData
from core.spec.parts.rows import Labels

LEFT_OUT, MADE_NEGATIVES = "left out by its label", "a negative of its query, by its label"
"""Names of counts: pairs that make no row."""

Verdict = Literal["positive", "negative", "neither"]

_ENTAILMENT: dict[str, Verdict] = {
    "entailment": "positive",
    "contradiction": "negative",
    "neutral": "neither",
    "not_entailment": "neither",
    "-": "neither",  # SNLI's annotators did not agree
}
_RELEVANCE_WORDS = frozenset(
    {"yes", "no", "true", "false", "positive", "negative", "relevant", "irrelevant", "not_relevant"}
    | {"duplicate", "not_duplicate", "paraphrase", "not_paraphrase", "match", "no_match"}
)


@dataclass(frozen=True)
class _Mark:
    """The label of one pair: the column it stands in, and its value."""

    column: str
    value: Any
    is_label: bool  # by its name a label, and not a score

    @property
    def number(self) -> float | None:
        return _number(self.value)


def _number(value: Any) -> float | None:
    """The number that a value is or writes; None for what is none."""
    if not isinstance(value, bool | int | float | str):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def _score(column: str, value: Any) -> float:
    """A finite number. Raises `ValueError`."""
    number = _number(value)
    if number is None or not math.isfinite(number):
        raise ValueError(f"{column} is a number, not {str(value)[:40]!r}")
    return number


def mark_of(row: Row, roles: Roles) -> _Mark | None:
    """The label or score beside a pair; None where there is none, or only an empty cell or free text."""
    column = roles.mark
    if column is None or roles.positive is None:
        return None
    value = row.values[column]
    if value is None or (isinstance(value, float) and math.isnan(value)) or isinstance(value, list | dict):
        return None
    if isinstance(value, str) and not value.strip():
        return None
    mark = _Mark(column, value.strip() if isinstance(value, str) else value, roles.label is not None)
    if mark.number is None and not (_word(mark) in _ENTAILMENT or _word(mark) in _RELEVANCE_WORDS):
        return None  # a label of something else: a topic, a language
    return mark


def _word(mark: _Mark) -> str:
    return str(mark.value).casefold().replace(" ", "_").replace("-", "_") if mark.value != "-" else "-"


def judge(row: Row, roles: Roles, asked: Literal["auto", "ignore", "defer"] | Labels) -> Verdict | None:
    """Whether a pair is a positive; None for a pair without a label. Raises `BadData` for a label whose
    meaning would have to be guessed, with the spec's lines that give it."""
    if isinstance(asked, Labels) and asked.column is not None and asked.column not in row.values:
        raise BadData(f"labels.column is {asked.column!r}, and the columns are {', '.join(row.values)}")
    if isinstance(asked, Labels) and asked.decides:
        column = asked.column or roles.mark
        return None if column is None else _as_asked(row, column, asked)
    mark = mark_of(row, roles)
    if mark is None:
        return None
    number = mark.number
    is_premise = _is_premise(roles)
    if number is None and (verdict := _ENTAILMENT.get(_word(mark))) is not None:
        return verdict
    if number in (0.0, 1.0) and mark.is_label and not is_premise:
        return "positive" if number == 1.0 else "negative"
    raise BadData(_question(row, mark, is_premise=is_premise))


def _is_premise(roles: Roles) -> bool:
    """Of a premise and a hypothesis 0 is entailment in most sets, and 1 in others."""
    return (roles.query or "").strip().casefold() == "premise"


def _question(row: Row, mark: _Mark, *, is_premise: bool) -> str:
    place = f"{row.file}, line {row.line}: the column {mark.column} is {mark.value!r} beside a pair"
    rest = "or `labels: ignore` to train on every pair as a positive"
    of_column = f"column: {mark.column}, "
    if mark.number is None:
        word = repr(str(mark.value))  # quoted: YAML takes yes and no for booleans
        return (
            f"{place}. Which values mark a positive? For example "
            f"`labels: {{{of_column}positive: [{word}], negative: []}}`; {rest}."
        )
    if is_premise or (mark.number.is_integer() and mark.is_label):
        values = "positive: [0], negative: [2]" if is_premise else "positive: [1], negative: [0]"
        return (
            f"{place}. Which values mark a positive? For example `labels: {{{of_column}{values}}}`; or "
            f"`loss: {{name: cosent}}` to learn the scores; {rest}."
        )
    example = (
        "positive: [1], negative: [0]"
        if mark.number in (0.0, 1.0)
        else "min_positive: 0.8, max_negative: 0.2"
    )
    return (
        f"{place}. A score is not used unless the spec says how: `labels: {{{of_column}{example}}}`, or "
        f"`loss: {{name: cosent}}` (or regression) to learn the scores; {rest}."
    )


def _as_asked(row: Row, column: str, asked: Labels) -> Verdict:
    value = row.values.get(column)
    if asked.min_positive is not None:
        number = _score(column, value)
        if number >= asked.min_positive:
            return "positive"
        return "negative" if asked.max_negative is not None and number <= asked.max_negative else "neither"
    if _in(value, asked.positive or []):
        return "positive"
    return "negative" if _in(value, asked.negative or []) else "neither"


def _in(value: Any, values: list[Any]) -> bool:
    """Equal as a text or as a number: 1, 1.0, true and "1" are one value, as CSV and JSON write it."""
    number = _number(value)
    return any(
        str(value).strip() == str(other) or (number is not None and number == _number(other))
        for other in values
    )


def graded_row(row: Row, roles: Roles, found: TrainingRow, asked: Any) -> TrainingRow:
    """The pair with its label or score as ``scores``. Raises `ValueError` where it has none."""
    column = getattr(asked, "column", None) or roles.mark
    if column is None or found.negatives or found.scores:
        return found
    number = _score(column, row.values.get(column))
    return replace(found, scores=[number / (getattr(asked, "divide_by", None) or 1.0)])


class LabelledPairs:
    """The pairs of a source by their labels: rows of the positives, with the negatives of their query.

    ``records`` begins reading the source anew. Memory: the distinct queries' share of an index on disk.
    """

    def __init__(self, records: Callable[[], Iterator[Row | Reject]], parser: RecordParser) -> None:
        self._records, self._parser = records, parser
        self._database: sqlite3.Connection | None = None

    def rows(self, row: Row, verdict: Verdict) -> Iterator[TrainingRow | Reject]:
        """The training rows of one judged pair: none, unless it is a positive."""
        for found in self._parser.rows(row):
            if isinstance(found, Reject):
                yield found
            elif verdict == "positive":
                yield _with_negatives(found, self._negatives(found.query))

    def _negatives(self, query: str) -> list[tuple[str, str | None]]:
        return (
            self._pairs()
            .execute(
                "SELECT document, min(name) FROM pairs WHERE query = ?1 AND NOT positive "
                "AND document NOT IN (SELECT document FROM pairs WHERE query = ?1 AND positive) "
                "GROUP BY document ORDER BY min(rowid)",
                (_key(query),),
            )
            .fetchall()
        )

    def _pairs(self) -> sqlite3.Connection:
        if self._database is None:
            self._database = self._collect()
        return self._database

    def _collect(self) -> sqlite3.Connection:
        """Every judged pair of the source, on disk, and the counts of them."""
        database = sqlite3.connect("", isolation_level=None)  # "": a temporary file of SQLite's own
        database.execute("PRAGMA journal_mode = OFF")
        database.execute("CREATE TABLE pairs (query BLOB, positive INTEGER, document TEXT, name TEXT)")
        quiet = RecordParser(self._parser.reading.quietly())
        neither = 0
        database.execute("BEGIN")
        for row in self._records():
            if isinstance(row, Reject):
                continue
            roles = quiet.roles(row)
            try:
                verdict = judge(row, roles, quiet.reading.labels)
            except ValueError:
                continue  # a reject when the rows are read
            neither += verdict == "neither"
            for found in quiet.rows(row) if verdict in ("positive", "negative") else ():
                if isinstance(found, TrainingRow):
                    database.execute(
                        "INSERT INTO pairs VALUES (?, ?, ?, ?)",
                        (_key(found.query), verdict == "positive", found.positive, found.positive_id),
                    )
        database.execute("COMMIT")
        database.execute("CREATE INDEX by_query ON pairs (query, positive)")
        self._report(database, neither)
        return database

    def _report(self, database: sqlite3.Connection, neither: int) -> None:
        def count(condition: str) -> int:
            return int(database.execute(f"SELECT count(*) FROM pairs WHERE {condition}").fetchone()[0])  # noqa: S608

        positives, negatives = count("positive"), count("NOT positive")
        alone = count("NOT positive AND query NOT IN (SELECT query FROM pairs WHERE positive)")
        both = count(
            "NOT positive AND (query, document) IN (SELECT query, document FROM pairs WHERE positive)"
        )
        if not negatives and not neither:
            return
        report = self._parser.reading.report
        used = negatives - alone - both
        sentence = f"labels: {positives} pairs are positives, {used} are negatives of their query"
        if alone:
            sentence += f", {alone} are left out (negatives of a query without a positive)"
        if neither:
            sentence += f", {neither} are left out (neither positive nor negative)"
        if both:
            sentence += f", {both} are left out (labelled both ways)"
        report.note(f"{sentence}.", "warning" if alone or neither or both else "info")
        report.counts[LEFT_OUT] += alone + neither + both
        report.counts[MADE_NEGATIVES] += used

    def close(self) -> None:
        """Report sources that have no positive at all, and free the disk. Raises `BadData`."""
        self._pairs().close()


def _with_negatives(row: TrainingRow, documents: list[tuple[str, str | None]]) -> TrainingRow:
    """The row with more negatives behind its own. What stood one a negative would no longer fit: left out."""
    if not documents:
        return row
    names = [*(row.negative_ids or [""] * len(row.negatives)), *(name or "" for _, name in documents)]
    return replace(
        row,
        negatives=[*row.negatives, *(text for text, _ in documents)],
        negative_ids=names if any(names) else [],
        scores=[],
        difficulty=[],
    )


def _key(query: str) -> bytes:
    return hashlib.blake2b(query.encode(), digest_size=16).digest()
