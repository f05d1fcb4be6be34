"""Irregularities of judged sets and of runs, counted by kind, with the first few ids as examples."""

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Any, Literal

from core.data.rows.hashing import text_hash
from core.data.rows.row import Judgment

Level = Literal["info", "warning"]

_EXAMPLES = 3


class Irregularity(StrEnum):
    """A kind of irregularity."""

    DOCUMENT_REPEATED = "document_repeated"
    DOCUMENT_CONFLICT = "document_conflict"
    QUERY_REPEATED = "query_repeated"
    QUERY_CONFLICT = "query_conflict"
    JUDGMENT_REPEATED = "judgment_repeated"
    JUDGMENT_CONFLICT = "judgment_conflict"
    DOCUMENT_MISSING = "document_missing"
    QUERY_MISSING = "query_missing"
    QUERY_WITHOUT_RELEVANT = "query_without_relevant"
    QUERY_NEVER_RELEVANT = "query_never_relevant"
    RELEVANT_EXCLUDED = "relevant_excluded"
    OWN_DOCUMENT_EXCLUDED = "own_document_excluded"
    OWN_DOCUMENT_KEPT = "own_document_kept"
    OWN_DOCUMENT_RELEVANT = "own_document_relevant"
    RUN_DOCUMENT_MISSING = "run_document_missing"
    RUN_QUERY_UNKNOWN = "run_query_unknown"
    RUN_QUERY_MISSING = "run_query_missing"


_SENTENCES: dict[Irregularity, tuple[Level, str, str]] = {
    Irregularity.DOCUMENT_REPEATED: (
        "info",
        "documents with the id and the text of an earlier one",
        "Each id counts once.",
    ),
    Irregularity.DOCUMENT_CONFLICT: (
        "warning",
        "documents with the id of an earlier one, but another text",
        "The first text of an id is used.",
    ),
    Irregularity.QUERY_REPEATED: (
        "info",
        "queries with the id and the text of an earlier one",
        "Each id counts once.",
    ),
    Irregularity.QUERY_CONFLICT: (
        "warning",
        "queries with the id of an earlier one, but another text",
        "The first text of an id is used.",
    ),
    Irregularity.JUDGMENT_REPEATED: (
        "info",
        "judgments of a query and document that were judged before, with the same grade",
        "Each pair counts once.",
    ),
    Irregularity.JUDGMENT_CONFLICT: (
        "warning",
        "judgments of a query and document that were judged before, with another grade",
        "The first grade is used.",
    ),
    Irregularity.DOCUMENT_MISSING: (
        "warning",
        "judgments of documents that are not in the corpus",
        "They are left out (on_missing: drop).",
    ),
    Irregularity.QUERY_MISSING: (
        "warning",
        "judged queries that have no text",
        "They are left out (on_missing: drop).",
    ),
    Irregularity.QUERY_WITHOUT_RELEVANT: (
        "warning",
        "queries that have lost all of their relevant documents",
        "They are left out (on_missing: drop).",
    ),
    Irregularity.QUERY_NEVER_RELEVANT: (
        "info",
        "queries with no relevant document in the judgments",
        "Ranking metrics do not count them.",
    ),
    Irregularity.RELEVANT_EXCLUDED: (
        "warning",
        "relevant documents that their query's excluded_ids name",
        "They are left out of the ranking and cannot be found.",
    ),
    Irregularity.OWN_DOCUMENT_EXCLUDED: (
        "info",
        "queries whose id is that of a document",
        "The document is left out of their own ranking, as in BEIR (identical_ids).",
    ),
    Irregularity.OWN_DOCUMENT_KEPT: (
        "info",
        "queries whose id is that of a document, which stays in their ranking",
        "identical_ids: exclude leaves it out, as BEIR does.",
    ),
    Irregularity.OWN_DOCUMENT_RELEVANT: (
        "info",
        "queries whose id is that of a document that is judged relevant to them",
        "It stays in their ranking.",
    ),
    Irregularity.RUN_DOCUMENT_MISSING: (
        "warning",
        "lines of the run that rank documents that are not in the corpus",
        "They are left out, and the documents below them move up (on_missing: drop).",
    ),
    Irregularity.RUN_QUERY_UNKNOWN: (
        "info",
        "queries of the run that are not judged in this split",
        "They are left out.",
    ),
    Irregularity.RUN_QUERY_MISSING: (
        "warning",
        "queries without a ranking in the run",
        "They count as 0.",
    ),
}
"""The level of each kind, what is counted, and what was done about it."""


class Remarks:
    """Counts by kind. The first few ids of each kind are kept as examples."""

    def __init__(self) -> None:
        self._counts: dict[Irregularity, int] = {}
        self._examples: dict[Irregularity, list[str]] = {}

    def add(self, kind: Irregularity, example: str) -> None:
        self._counts[kind] = self._counts.get(kind, 0) + 1
        examples = self._examples.setdefault(kind, [])
        if len(examples) < _EXAMPLES and example not in examples:
            examples.append(example)

    def count(self, kind: Irregularity) -> int:
        return self._counts.get(kind, 0)

    def examples(self, kind: Irregularity) -> list[str]:
        return self._examples.get(kind, [])

    def sentences(self) -> Iterator[tuple[str, Level]]:
        """A sentence and its level for each kind."""
        for kind, count in self._counts.items():
            level, what, done = _SENTENCES[kind]
            examples = self._examples[kind]
            shown = ", ".join([*examples, *(["..."] if count > len(examples) else [])])
            yield f"{what}: {count:,} ({shown}). {done}", level

    def as_dict(self) -> dict[str, Any]:
        """``{kind: {count, examples}}``"""
        return {
            kind.value: {"count": count, "examples": self._examples[kind]}
            for kind, count in self._counts.items()
        }


class FirstTexts:
    """Remembers which ids have come, and with which text. Memory: about 150 bytes an id."""

    def __init__(self, what: Literal["document", "query"], remarks: Remarks) -> None:
        self._remarks = remarks
        self._same = Irregularity(f"{what}_repeated")
        self._other = Irregularity(f"{what}_conflict")
        self._known: dict[int, int] = {}  # hash of the id -> hash of its text

    def is_first(self, name: str, text: str) -> bool:
        """Whether the id is new. A repetition is added to the remarks."""
        of_id, of_text = text_hash(name), text_hash(text)
        first = self._known.get(of_id)
        if first is None:
            self._known[of_id] = of_text
            return True
        self._remarks.add(self._same if first == of_text else self._other, name)
        return False

    def knows(self, name: str) -> bool:
        return text_hash(name) in self._known

    def forget(self) -> None:
        """Give back the memory; the remarks stay."""
        self._known.clear()


def first_texts(
    texts: Iterable[tuple[str, str]], what: Literal["document", "query"], remarks: Remarks
) -> Iterator[tuple[str, str]]:
    """Every (id, text) whose id has not come before."""
    seen = FirstTexts(what, remarks)
    for name, text in texts:
        if seen.is_first(name, text):
            yield name, text


def first_judgments(judgments: Iterable[Judgment], remarks: Remarks) -> Iterator[Judgment]:
    """Every judgment whose query and document have not come before. Memory: about 150 bytes a judgment."""
    known: dict[int, int] = {}  # hash of query and document -> grade
    for judgment in judgments:
        pair = text_hash(f"{judgment.query}\0{judgment.document}")
        first = known.get(pair)
        if first is None:
            known[pair] = judgment.grade
            yield judgment
            continue
        same = first == judgment.grade
        kind = Irregularity.JUDGMENT_REPEATED if same else Irregularity.JUDGMENT_CONFLICT
        remarks.add(kind, f"{judgment.query} {judgment.document}")
