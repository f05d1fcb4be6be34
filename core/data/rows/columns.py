"""Which column of a record has which role, by the names that are usual in the field or by the spec's."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from core.spec.parts.rows import ColumnName

QUERY_NAMES = ("query", "anchor", "question", "query_text", "search_query", "user_query")
POSITIVE_NAMES = (
    "positive",
    "pos",
    "positives",
    "positive_passages",
    "positive_ctxs",
    "positive_passage",
    "positive_document",
    "positive_text",
    # Where a question has a context and an answer, the context is the document that retrieval must find.
    "context",
    "document",
    "passage",
    "answer",
    "response",
)
NEGATIVE_NAMES = (
    "negative",
    "neg",
    "negatives",
    "negative_passages",
    "negative_ctxs",
    "hard_negative_ctxs",
    "hard_negative",
    "hard_negatives",
    "negative_passage",
    "negative_document",
    "negative_text",
)
PAIRS = (
    ("sentence1", "sentence2"),
    ("sentence_0", "sentence_1"),
    ("sentence_1", "sentence_2"),
    ("sentence0", "sentence1"),
    ("sentence_a", "sentence_b"),
    ("text1", "text2"),
    ("text_0", "text_1"),
    ("text_1", "text_2"),
    ("text_a", "text_b"),
    ("question1", "question2"),
    ("question_1", "question_2"),
    ("sent1", "sent2"),
    ("sent_1", "sent_2"),
    ("premise", "hypothesis"),
)
"""Columns that are a pair by their names together: the first is the query, the second the positive."""

THIRD = {("sentence_0", "sentence_1"): "sentence_2", ("sentence0", "sentence1"): "sentence2"}
"""sentence-transformers names unnamed columns by their place; the third place is the negative's."""

INSTRUCTION_NAMES = ("instruction", "prompt")
LABEL_NAMES = (
    "label",
    "labels",
    "is_duplicate",
    "is_relevant",
    "is_positive",
    "is_match",
    "relevant",
    "gold_label",
)
SCORE_NAMES = (
    "score",
    "similarity",
    "similarity_score",
    "cosine_similarity",
    "relevance",
    "relevance_score",
    "rating",
)
TEXT_NAMES = ("text", "content", "contents", "page_content", "document_text", "body", "passage")
"""Names of the column that holds a document's text."""

ID_NAMES = ("_id", "id", "docid", "doc_id", "document_id", "pid", "query_id", "qid", "chunk_id")

_SIMPLE = ("category", "group", "query_id", "positive_id", "negative_ids", "difficulty", "scores")
_NUMBERED = re.compile(r"(hard_)?neg(ative)?_?\d+")


def plain_name(column: str) -> str:
    """A column's name without case, outer spaces and separators: ``Query Text`` is ``query_text``."""
    return re.sub(r"[\s-]+", "_", column.strip().casefold())


@dataclass(frozen=True)
class Roles:
    """The columns of a record by role, under the names that they have in the file. None: no such column.

    ``label`` is a column of labels, ``score`` one of scores, beside a pair without negatives.
    """

    query: str | None = None
    positive: str | None = None
    negatives: tuple[str, ...] = ()
    instruction: tuple[str, ...] = ()
    category: str | None = None
    group: str | None = None
    query_id: str | None = None
    positive_id: str | None = None
    negative_ids: str | None = None
    difficulty: str | None = None
    scores: str | None = None
    pos_scores: str | None = None
    neg_scores: str | None = None
    label: str | None = None
    score: str | None = None
    unused: tuple[str, ...] = ()

    @property
    def mark(self) -> str | None:
        """The column of labels, or of scores, beside a pair."""
        return self.label or self.score

    def by_role(self) -> dict[str, tuple[str, ...]]:
        """The columns of each role that has any. A teacher's scores are one role."""
        found: dict[str, tuple[str, ...]] = {}
        for role, columns in vars(self).items():
            if role != "unused" and columns:
                role = "scores" if role in ("pos_scores", "neg_scores") else role
                found[role] = (*found.get(role, ()), *((columns,) if isinstance(columns, str) else columns))
        return found


def assign_roles(
    columns: tuple[str, ...],
    asked: Mapping[str, ColumnName] | None = None,
    label: str | None = None,
) -> Roles:
    """Give each column its role. ``asked`` are the spec's columns by role, ``label`` its column of labels.

    A column that the spec names has only the role that the spec gives it.
    """
    asked = asked or {}
    plain: dict[str, str] = {}
    for column in columns:  # of two that differ only in case, the exact one counts
        if plain.setdefault(plain_name(column), column) != column and column == plain_name(column):
            plain[column] = column
    given = {role: _given(name, columns) for role, name in asked.items()}
    taken = {column for found in given.values() for column in found}
    if label in columns:
        taken.add(str(label))
    free = {name: column for name, column in plain.items() if column not in taken}

    def one(role: str, *names: str) -> str | None:
        if role in asked:
            return given[role][0] if given[role] else None
        return next((free[name] for name in names if name in free), None)

    query, positive = one("query", *QUERY_NAMES), one("positive", *POSITIVE_NAMES)
    negatives = given["negatives"] if "negatives" in asked else _negatives(free)
    if query is None and positive is None and not {"query", "positive"} & asked.keys():
        pair = next((pair for pair in PAIRS if pair[0] in free and pair[1] in free), None)
        if pair is not None:
            query, positive = free[pair[0]], free[pair[1]]
            third = THIRD.get(pair)
            if third in free and "negatives" not in asked:
                negatives = (free[third], *negatives)
    simple: dict[str, Any] = {name: one(name, name) for name in _SIMPLE}
    teacher: dict[str, Any] = {
        name: free.get(name) for name in ("pos_scores", "neg_scores") if not simple["scores"]
    }
    instruction = (
        given["instruction"]
        if "instruction" in asked
        else tuple(free[name] for name in INSTRUCTION_NAMES if name in free)
    )
    judged = not negatives and not simple["scores"] and not any(teacher.values())
    labels = str(label) if label in columns else next((free[n] for n in LABEL_NAMES if n in free), None)
    score = next((free[name] for name in SCORE_NAMES if name in free), None)
    found = Roles(
        query,
        positive,
        negatives,
        instruction,
        **simple,
        **teacher,
        label=labels if judged or label in columns else None,
        score=score if judged and labels is None else None,
    )
    used = {column for of_role in found.by_role().values() for column in of_role}
    return replace(found, unused=tuple(column for column in columns if column not in used))


def _given(name: ColumnName, columns: tuple[str, ...]) -> tuple[str, ...]:
    """The columns that the spec names, under their names in the file: an exact name, else its plain form."""
    wanted = [str(item) for item in (name if isinstance(name, list) else [name])]
    by_plain = {plain_name(column): column for column in reversed(columns)}
    found = (item if item in columns else by_plain.get(plain_name(item)) for item in wanted)
    return tuple(column for column in found if column is not None)


def _negatives(free: Mapping[str, str]) -> tuple[str, ...]:
    named = [free[name] for name in NEGATIVE_NAMES if name in free]
    numbered = sorted((name for name in free if _NUMBERED.fullmatch(name)), key=_number)
    return (*named, *(free[name] for name in numbered))


def _number(name: str) -> tuple[str, int]:
    stem = name.rstrip("0123456789")
    return stem, int(name[len(stem) :])


def example_of(values: Mapping[str, object], roles: Roles) -> str:
    """The spec's line that would make a record readable, out of its own columns: ``columns: {query: title,
    positive: body}``"""
    texts = [column for column, value in values.items() if isinstance(value, str | list)]
    free = [column for column in texts if column not in (roles.query, roles.positive)]
    query = roles.query or (free.pop(0) if free else None)
    positive = roles.positive or (free.pop(0) if free else None)
    return f"columns: {{query: {query or 'NAME'}, positive: {positive or 'NAME'}}}"
