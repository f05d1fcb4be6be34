"""A report as blocks, and the two forms in which people read it.

Whoever measures says what there is to say once; markdown is for terminals and pull requests, the page of HTML
is one file that can be sent around: its plots are inside, and it asks nobody for anything.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, PackageLoader

_DOCUMENTS = 1_000_000


@dataclass(frozen=True)
class Heading:
    text: str
    level: int = 2
    kind: str = field(default="heading", init=False)


@dataclass(frozen=True)
class Text:
    """A paragraph. ``tone``: of a verdict ``good``, ``bad`` or ``even``."""

    text: str
    tone: str = ""
    kind: str = field(default="text", init=False)


@dataclass(frozen=True)
class Table:
    """``words``: so many columns from the left are words, the others numbers."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int = 1
    kind: str = field(default="table", init=False)


@dataclass(frozen=True)
class Figure:
    """A PNG of the report's folder."""

    file: str
    text: str
    kind: str = field(default="figure", init=False)


@dataclass(frozen=True)
class Listing:
    """Points below each other."""

    items: Sequence[str]
    kind: str = field(default="listing", init=False)


@dataclass(frozen=True)
class StoredAs:
    """A way to keep a corpus, what a document takes in it, and what it is worth."""

    name: str
    bytes_per_document: float
    scores: Sequence[str]


@dataclass(frozen=True)
class Sizes:
    """A table of ways to keep a corpus; the page of HTML reckons it for any number of documents."""

    columns: Sequence[str]  # of the scores
    rows: Sequence[StoredAs]
    kind: str = field(default="sizes", init=False)

    documents: int = field(default=_DOCUMENTS, init=False)


@dataclass(frozen=True)
class Details:
    """What is folded away."""

    title: str
    blocks: Sequence["Block"]
    kind: str = field(default="details", init=False)


Block = Heading | Text | Table | Figure | Listing | Sizes | Details


@dataclass(frozen=True)
class Document:
    title: str
    blocks: Sequence[Block]

    def markdown(self) -> str:
        return "\n\n".join([f"# {_line(self.title)}", *(_markdown(block) for block in self.blocks)]) + "\n"

    def html(self, folder: Path) -> str:
        """``folder`` has the figures' files."""
        environment = Environment(
            loader=PackageLoader("core.reports", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
        )
        environment.filters["size"] = size
        environment.filters["data_uri"] = lambda name: _data_uri(folder / name)
        return environment.get_template("report.html.j2").render(document=self)


def write_document(document: Document, folder: Path, name: str = "report") -> None:
    """NAME.md and NAME.html. The figures must lie in the folder already."""
    (folder / f"{name}.md").write_text(document.markdown(), encoding="utf-8")
    (folder / f"{name}.html").write_text(document.html(folder), encoding="utf-8")


def size(count: float) -> str:
    """Bytes as people say them, in powers of ten."""
    for unit, of_unit in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= of_unit:
            return f"{count / of_unit:.3g} {unit}"
    return f"{count:.0f} B"


def _data_uri(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def _markdown(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {_line(text)}"
        case Text(text):
            return _line(text)
        case Table(columns, rows, words):
            return _table(columns, rows, words)
        case Figure(file, text):
            return f"![{_line(text)}]({file})"
        case Listing(items):
            return "\n".join(f"- {_line(item)}" for item in items)
        case Sizes(columns, rows):
            return _table(
                ["stored as", "bytes a document", "a million documents", *columns],
                [
                    [
                        row.name,
                        f"{row.bytes_per_document:,.0f}",
                        size(row.bytes_per_document * _DOCUMENTS),
                        *row.scores,
                    ]
                    for row in rows
                ],
                1,
            )
        case Details(title, blocks):
            inside = "\n\n".join(_markdown(inner) for inner in blocks)
            return f"**{_line(title)}**\n\n{inside}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], words: int) -> str:
    marks = ["---" if number < words else "---:" for number in range(len(columns))]
    lines = [columns, marks, *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _line(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return _line(text).replace("|", "\\|")
