"""A piece of a document, and what its author says about it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from core.spec.parts.queries import QueryKind

Spans = tuple[tuple[int, int], ...]
"""Parts of a text: where each begins and ends."""


def flatten_spans(spans: Spans) -> list[int]:
    """Spans as one list of numbers, for a column of a table."""
    return [place for span in spans for place in span]


def pair_spans(places: Sequence[int]) -> Spans:
    """The opposite of `flatten_spans`."""
    return tuple(zip(places[::2], places[1::2], strict=True))


@dataclass(frozen=True)
class Draft:
    """A possible query for a passage.

    ``forms``: the query, each form more specific than the one before. ``spans``: the characters of the
    passage's text that say the same; they are removed from it if the draft becomes a query. ``section``: the
    number of the section that it asks for; -1: the passage. ``refused``: why it cannot be a query, for the
    report.
    """

    kind: QueryKind
    forms: tuple[str, ...]
    spans: Spans = ()
    section: int = -1
    refused: str = ""


@dataclass(frozen=True)
class Link:
    """The words of a link, and the document and heading it leads to: ``guide/setup#first-steps``."""

    text: str
    target: str


@dataclass(frozen=True)
class Passage:
    """A piece of a document.

    ``start`` and ``end`` are characters of the document; lines, for Python. ``sections`` are the spans of its
    sections, or of their parts, in ``text``; ``anchors`` are what a `Link` to the passage names.
    """

    id: str
    text: str
    document: str
    category: str | None = None
    title: str | None = None
    path: tuple[str, ...] = ()
    number: int = 0  # in its document
    start: int = 0
    end: int = 0
    drafts: tuple[Draft, ...] = ()
    sections: Spans = ()
    anchors: tuple[str, ...] = ()
    links: tuple[Link, ...] = ()

    def below(self, folder: str) -> "Passage":
        """The passage of a document whose name another source has as well."""
        return replace(
            self,
            id=f"{folder}/{self.id}",
            document=f"{folder}/{self.document}",
            anchors=tuple(f"{folder}/{anchor}" for anchor in self.anchors),
            links=tuple(replace(link, target=f"{folder}/{link.target}") for link in self.links),
        )

    def shown(self) -> dict[str, Any]:
        """For a preview: what it says and where it is from."""
        names = ("id", "text", "document", "category", "title", "path", "number", "start", "end")
        queries = [draft.forms[0] for draft in self.drafts if not draft.refused]
        return {**{name: getattr(self, name) for name in names}, "queries": queries}
