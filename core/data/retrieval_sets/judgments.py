"""A retrieval set in memory, and the rules for what its judgments may name."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from core.data.rows.remarks import Irregularity, Remarks
from core.data.rows.row import Judgment
from core.errors import BadData

OnMissing = Literal["fail", "drop"]
IdenticalIds = Literal["auto", "exclude", "keep"]


@dataclass(frozen=True)
class Coincidence:
    """What was decided about a set whose queries and documents share ids.

    ``coinciding`` counts queries whose id is that of a document, ``relevant`` those among them whose own
    document is judged relevant. ``same_text`` counts, among the others, those whose document has the query's
    text; ``excluded`` those whose document their ranking leaves out.
    """

    setting: IdenticalIds
    coinciding: int
    relevant: int
    same_text: int
    excluded: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class RetrievalSet:
    """Texts by id, and grades by query and document (0 is judged irrelevant).

    ``excluded`` are documents that a query's ranking must leave out; ``categories`` are those of queries.
    ``remarks`` are the irregularities that were found while reading.
    """

    queries: dict[str, str] = field(default_factory=dict)
    corpus: dict[str, str] = field(default_factory=dict)
    qrels: dict[str, dict[str, int]] = field(default_factory=dict)
    rejects: int = 0
    excluded: dict[str, set[str]] = field(default_factory=dict)
    categories: dict[str, str] = field(default_factory=dict)
    remarks: Remarks = field(default_factory=Remarks)
    coincidence: Coincidence | None = None  # None: nobody has looked

    @property
    def sha256(self) -> str:
        """Of everything that a ranking and its scores depend on."""
        digest = hashlib.sha256()
        for texts in (self.queries, self.corpus):
            for key, text in texts.items():
                for part in (key, text):
                    encoded = part.encode()
                    digest.update(len(encoded).to_bytes(8, "little") + encoded)
            digest.update(b"\0")
        for query in sorted(self.excluded):
            digest.update(repr((query, sorted(self.excluded[query]))).encode())
        for query in sorted(self.qrels):
            digest.update(repr((query, sorted(self.qrels[query].items()))).encode())
        return digest.hexdigest()


class Judging:
    """Enters judgments into a set whose corpus is read."""

    def __init__(self, found: RetrievalSet, where: str, on_missing: OnMissing) -> None:
        """``where`` is the name of the set in messages."""
        self._found, self._where, self._on_missing = found, where, on_missing
        self._first_missing = ""
        self._missing = 0
        self._without_text: set[str] = set()
        self._lost: set[str] = set()  # queries that have lost a relevant document

    def add(self, judgment: Judgment, queries: Mapping[str, str]) -> None:
        """Enter a judgment and its query, or note that one of its texts is missing."""
        query, document = judgment.query, judgment.document
        remarks = self._found.remarks
        if query not in queries:
            self._note_missing(judgment, "query", query)
            if query not in self._without_text:
                self._without_text.add(query)
                remarks.add(Irregularity.QUERY_MISSING, query)
            return
        if document not in self._found.corpus:
            self._note_missing(judgment, "document", document)
            remarks.add(Irregularity.DOCUMENT_MISSING, document)
            if judgment.grade > 0:
                self._lost.add(query)
            return
        self._found.queries[query] = queries[query]
        self._found.qrels.setdefault(query, {})[document] = judgment.grade

    def _note_missing(self, judgment: Judgment, what: str, name: str) -> None:
        self._missing += 1
        if not self._first_missing:
            where = f"{judgment.file}, line {judgment.line}"
            self._first_missing = f"{where}: judges {what} {name!r}, which is not in {self._where}"

    def close(self) -> None:
        """Settle what is missing. Raises `BadData` unless it may be dropped, and when nothing is relevant."""
        if self._missing and self._on_missing == "fail":
            raise BadData(
                f"{self._first_missing}; {self._missing:,} judgments name queries or documents that are "
                "missing (on_missing: drop leaves such judgments out and counts them)"
            )
        found, remarks = self._found, self._found.remarks
        for query in sorted(self._lost):
            if not _has_relevant(found.qrels.get(query, {})):
                found.qrels.pop(query, None)
                found.queries.pop(query, None)
                remarks.add(Irregularity.QUERY_WITHOUT_RELEVANT, query)
        for query, grades in found.qrels.items():
            if not _has_relevant(grades):
                remarks.add(Irregularity.QUERY_NEVER_RELEVANT, query)
        if not any(map(_has_relevant, found.qrels.values())):
            raise BadData(f"{self._where} has no relevant document for any query")


def _has_relevant(grades: Mapping[str, int]) -> bool:
    return any(grade > 0 for grade in grades.values())
