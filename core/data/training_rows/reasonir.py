"""ReasonIR's rows (arXiv 2504.20595): pairs of [instruction, text], some of which name BRIGHT's documents.

``query`` = [instruction, text]; ``pos`` = [[instruction, text or document id]]; ``neg`` = [[instruction,
text]].
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from core.data.io.lookup import Texts
from core.data.rows.record import TrainingRow
from core.data.rows.row import Reject, Row, check_text

_ID = re.compile(r"^\S*[/_]\S*$|^\S+\.(txt|json)$|^\d+$")
"""What stands for a document: one word that looks like a path, a file or a number."""


def looks_like_an_id(text: str) -> bool:
    return bool(_ID.match(text.strip()))


def is_reasonir(values: dict[str, Any]) -> bool:
    """Whether a record's positives are pairs."""
    positives = values.get("pos")
    return (
        isinstance(positives, list)
        and bool(positives)
        and all(isinstance(pair, list) for pair in positives)
        and "query" in values
    )


def wanted_ids(rows: Iterable[Row | Reject]) -> set[str]:
    """Everything in the pairs that may be a document's id."""
    found: set[str] = set()
    for row in rows:
        if isinstance(row, Row):
            for role in ("pos", "neg"):
                pairs = row.values.get(role)
                for pair in pairs if isinstance(pairs, list) else []:
                    if isinstance(pair, list) and len(pair) == 2 and isinstance(pair[1], str):
                        name = pair[1].strip()
                        if len(name) < 300 and " " not in name:
                            found.add(name)
    return found


@dataclass
class ReasonIR:
    """Turns records into training rows, and counts what it does with every pair.

    ``documents`` are looked up by id, in the row's own ``domain`` where it names one, else in all domains;
    None for rows whose texts stand inside them.
    """

    documents: Texts | None
    counts: Counter[str] = field(default_factory=Counter)

    def rows(self, row: Row) -> Iterator[TrainingRow | Reject]:
        """One for each positive; a reject when none is left."""
        values = row.values
        try:
            query, instruction = self._query(values.get("query"))
            domain = check_text(values["domain"]) if isinstance(values.get("domain"), str) else None
        except ValueError as error:
            yield Reject(row.file, row.line, str(error))
            return
        positives = dict(self._pairs(values.get("pos"), domain, "positive"))
        negatives = dict(self._pairs(values.get("neg"), domain, "negative"))
        if not positives:
            yield Reject(row.file, row.line, "no positive is left")
            return
        # A document cannot answer a query and not answer it.
        kept = {text: name for text, name in negatives.items() if text not in positives}
        self.counts["negative: is a positive"] += len(negatives) - len(kept)
        for text, name in positives.items():
            yield TrainingRow(
                query,
                text,
                list(kept),
                category=domain,
                instruction=instruction,
                positive_id=name,
                negative_ids=[name or "" for name in kept.values()] if any(kept.values()) else [],
            )

    def _query(self, value: Any) -> tuple[str, str | None]:
        parts = value if isinstance(value, list) else [value]
        if not parts or not all(isinstance(part, str) for part in parts):
            raise ValueError(f"a query is a text or [instruction, text], not {str(value)[:60]!r}")
        texts = [check_text(part).strip() for part in parts]
        if not texts[-1]:
            raise ValueError("the query is empty")
        instruction = " ".join(text for text in texts[:-1] if text)
        return " ".join(text for text in texts if text), instruction or None

    def _pairs(self, pairs: Any, domain: str | None, role: str) -> Iterator[tuple[str, str | None]]:
        """The texts of all pairs that can be used, each with the id it was found under."""
        if pairs is None:
            pairs = []
        if not isinstance(pairs, list):
            self.counts[f"{role}: not a list of pairs"] += 1
            return
        for pair in pairs:
            problem = _fault(pair)
            found: tuple[str, str | None] | None = None
            if problem is None:
                found, problem = self._resolve(pair[0].strip(), pair[1].strip(), domain)
            if found is not None and role == "positive" and len(found[0].split()) < 2:
                found, problem = None, "a label of one word"
            if found is None:
                self.counts[f"{role}: {problem}"] += 1
                continue
            self.counts[f"{role}: {'mapped from an id' if found[1] else 'text kept'}"] += 1
            yield found

    def _resolve(
        self, instruction: str, text: str, domain: str | None
    ) -> tuple[tuple[str, str | None] | None, str | None]:
        texts = self.documents.of(text, domain) if self.documents is not None else []
        if len(texts) > 1:
            return None, "an id of several documents"
        if texts and not texts[0].strip():
            return None, "an id of an empty document"
        if not texts and self.documents is not None and looks_like_an_id(text):
            return None, "an id of no document"
        body = texts[0].strip() if texts else text
        return (f"{instruction} {body}" if instruction else body, text if texts else None), None


def _fault(pair: Any) -> str | None:
    if not isinstance(pair, list):
        return f"a {type(pair).__name__} where a pair is needed"
    if len(pair) != 2:
        return "not exactly two elements"
    if not all(isinstance(part, str) for part in pair):
        return "not two texts"
    if not pair[1].strip():
        return "an empty text"
    try:
        check_text("".join(pair))
    except ValueError:
        return "not valid Unicode"
    return None
