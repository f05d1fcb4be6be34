"""What became of the drafts and of the queries: counts, and examples that people can read."""

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from core.data.documents.passage import Passage

_EXAMPLES = 5
"""Of each reason."""

_SHOWN = 20
"""Queries beside their passages."""

_SHOWN_CHARACTERS = 400


@dataclass
class QueryReport:
    """Filled while queries are chosen.

    ``extended``: titles that others share, and that got the titles above before them. ``left_out`` counts
    drafts and queries by reason. ``asked``: queries of people, where only these are used.
    """

    seed: int
    made: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    left_out_kinds: dict[str, Counter[str]] = field(default_factory=dict)
    extended: int = 0
    boilerplate_sections: int = 0
    unjudged: int = 0
    asked: int | None = None
    language_model: dict[str, Any] | None = None
    examples: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    _shown: list[tuple[float, dict[str, str]]] = field(default_factory=list)

    def leave_out(self, reason: str, kind: str, query: str, passage: Passage) -> None:
        self.left_out[reason] += 1
        self.left_out_kinds.setdefault(reason, Counter())[kind] += 1
        examples = self.examples.setdefault(reason, [])
        if len(examples) < _EXAMPLES:
            examples.append(_said(kind, query, passage, passage.text))

    def keep(self, kind: str, query: str, passage: Passage, text: str) -> None:
        """A query that is kept, and the text that answers it. Twenty of all are shown."""
        self.made[kind] += 1
        luck = random.Random(f"{self.seed} {passage.id} {query}").random()  # noqa: S311 - not a secret
        if len(self._shown) == _SHOWN and luck >= self._shown[-1][0]:
            return
        shown = (luck, _said(kind, query, passage, text))
        self._shown = sorted([*self._shown, shown], key=lambda item: item[0])[:_SHOWN]

    def page(self) -> dict[str, Any]:
        """As JSON, for the page of the dataset."""
        found: dict[str, Any] = {
            "made": dict(self.made.most_common()),
            "left_out": dict(self.left_out.most_common()),
            "left_out_kinds": {why: dict(kinds.most_common()) for why, kinds in self.left_out_kinds.items()},
            "asked": self.asked,
            "extended": self.extended,
            "boilerplate_sections": self.boilerplate_sections,
            "shown": [said for _, said in self._shown],
            "examples": self.examples,
        }
        if self.language_model is not None:
            found["language_model"] = {**self.language_model, "unjudged_queries": self.unjudged}
        return found


def _said(kind: str, query: str, passage: Passage, text: str) -> dict[str, str]:
    where = {"passage": passage.id, "document": passage.document}
    return {"kind": kind, "query": query, **where, "text": _beginning(text)}


def _beginning(text: str) -> str:
    short = " ".join(text.split())
    return short if len(short) <= _SHOWN_CHARACTERS else short[: _SHOWN_CHARACTERS - 1] + "\u2026"
