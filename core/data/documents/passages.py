"""Documents on disk -> passages: trees of Markdown, reStructuredText and Python, chunk files."""

import ast
import codecs
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from core.artifacts import MANIFEST
from core.data.documents.chunking import chunk
from core.data.documents.drafts import drafts_of, sections_of
from core.data.documents.links import anchors_of, links_in
from core.data.documents.passage import Draft, Passage
from core.data.documents.python_source import SKIPPED_FOLDERS, functions
from core.data.documents.ready_made import ready_made
from core.data.documents.text_blocks import PARSERS, Parsed
from core.data.io.packing import TreeFile, tree_files
from core.data.io.readers import as_text
from core.data.io.stopping import no_stop
from core.data.io.trees import common_folder, ending
from core.data.rows.reading import Reading
from core.data.rows.row import Reject, check_text
from core.errors import BadData
from core.spec.prepare import Format, PrepareSpec

DOCUMENT_FORMATS: tuple[Format, ...] = ("markdown", "rst", "python_source", "chunks")
TREES: tuple[Format, ...] = ("markdown", "rst", "python_source")
"""Formats whose documents are files of their own."""

_ENDINGS = {
    "markdown": (".md", ".markdown", ".mdx", ".txt"),
    "rst": (".rst", ".txt"),
    "python_source": (".py",),
}
_MOST_BYTES = 64 << 20


@dataclass(frozen=True)
class Cutting:
    """How documents become passages. ``drafts``: whether possible queries are looked for; ``docstrings``:
    whether functions keep theirs."""

    least: int
    most: int
    overlap: int = 0
    drafts: bool = False
    docstrings: bool = True

    @classmethod
    def of(cls, spec: PrepareSpec) -> "Cutting":
        least, most = spec.passage_characters
        asked = spec.task != "chunks" and spec.queries.real is None
        hides = asked and spec.queries.hide and "docstring" in spec.queries.of
        return cls(least, most, spec.chunking.overlap, drafts=asked, docstrings=not hides)


AS_WRITTEN = Cutting(3000, 5000)
"""Where documents are only looked into, or looked up."""


@dataclass(frozen=True)
class Document:
    """A document's text. ``name`` is its path below the source; ``parser`` is the key of `PARSERS`, or
    ``.py``."""

    name: str
    category: str | None
    parser: str
    text: str


def read_passages(
    path: Path,
    form: Format,
    category: str | None,
    cutting: Cutting,
    reading: Reading | None = None,
) -> Iterator[Passage | Reject]:
    """Every passage of a file or a tree, in the order of the paths. Raises `BadData` when there is no
    document. ``reading.report`` names the columns and files that are not used."""
    reading = reading or Reading()
    if form == "chunks":
        yield from ready_made(path, category, reading)
        return
    asked = {"columns": reading.columns, "labels": reading.labels not in ("auto", "defer")}
    if options := [name for name, given in asked.items() if given]:
        reading.report.note(f"{' and '.join(options)} have no effect: documents have no columns", "warning")
    _, others = files_by_ending(path, form)
    reading.report.files += [f"{count} {suffix or 'without ending'}" for suffix, count in others.items()]
    for found in read_documents(path, form, category, reading.encoding):
        if isinstance(found, Reject):
            yield found
        else:
            yield from passages_of(found, cutting)


def read_documents(
    path: Path,
    form: Format,
    category: str | None = None,
    encoding: str | None = None,
    check_stop: Callable[[], None] = no_stop,
) -> Iterator[Document | Reject]:
    """Every document of a file or a tree that has any text, in the order of the paths.

    Memory: one document. Raises `BadData` when there is none. ``check_stop`` is called for every file.
    """
    parts = common_folder(file.name for file in document_files(path, form, check_stop))
    if parts is None:
        raise BadData(f"{path.name} has no {form} files ({', '.join(_ENDINGS[form])})")
    for file in document_files(path, form, check_stop):
        # The folders that all documents are in do not tell one from another.
        inside = file.name.split("/")[len(parts) :]
        text = _text_of(file, encoding or _declared(file, form))
        if isinstance(text, Reject):
            yield text
        elif text.strip():
            own = category or (inside[0] if len(inside) > 1 else None)
            yield Document(file.name, own, ending(file.name), text)


def passages_of(document: Document, cutting: Cutting) -> Iterator[Passage | Reject]:
    """The passages of a document; a reject for a file that is not Python."""
    name, category = document.name, document.category
    if document.parser == ".py":
        yield from _python(document.text, name, category, cutting)
    else:
        yield from _document(PARSERS[document.parser](document.text), name, category, cutting)


def document_files(path: Path, form: Format, check_stop: Callable[[], None] = no_stop) -> Iterator[TreeFile]:
    """The files of a folder or a packed dataset that have this format, in path order.

    Hidden files and links out of the folder are left out. A file that is a document is its own tree.
    """
    if path.is_file():
        if ending(path.name) in _ENDINGS[form]:
            yield TreeFile(path.name, path)
        return
    skipped = SKIPPED_FOLDERS if form == "python_source" else set()

    def enter(folder: str) -> bool:
        return not folder.startswith(".") and folder not in skipped

    for file in tree_files(path, enter=enter, check_stop=check_stop):
        if ending(file.name) in _ENDINGS[form] and not file.name.rpartition("/")[2].startswith("."):
            yield file


_ENDINGS_TOLD = 20


def files_by_ending(
    path: Path, form: Format, check_stop: Callable[[], None] = no_stop
) -> tuple[int, dict[str, int]]:
    """The number of documents, and the other files by the ending of their names, the most common ones."""
    read = Counter(ending(file.name) for file in document_files(path, form, check_stop))
    others: Counter[str] = Counter()
    if path.is_dir():
        files = tree_files(path, enter=lambda name: not name.startswith("."), check_stop=check_stop)
        names = (file.name for file in files if not file.name.rpartition("/")[2].startswith("."))
        # An upload has a manifest beside its files.
        others.update(ending(name) for name in names if name != MANIFEST)
        others -= read
    return read.total(), dict(others.most_common(_ENDINGS_TOLD))


_CODING = re.compile(rb"^[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)", re.M)


def _declared(file: TreeFile, form: Format) -> str | None:
    """The encoding that a Python file names in its first two lines (PEP 263)."""
    if form != "python_source":
        return None
    with file.open() as opened:
        found = _CODING.search(opened.readline(1000) + opened.readline(1000))
    try:
        return codecs.lookup(found[1].decode()).name if found else None
    except LookupError:
        return None


def _text_of(file: TreeFile, encoding: str | None) -> str | Reject:
    try:
        size = file.bytes
        if size > _MOST_BYTES:
            most = f"at most {_MOST_BYTES >> 20} MiB are read: split it"
            return Reject(file.name, 1, f"the document has {size / 2**20:.1f} MiB, {most}")
        with as_text(file.open(), encoding) as opened:
            return check_text(opened.read())
    except (OSError, UnicodeError, ValueError) as error:
        return Reject(file.name, 1, str(error))


def _document(parsed: Parsed, name: str, category: str | None, cutting: Cutting) -> Iterator[Passage]:
    first = next((block.title for block in parsed.blocks if block.level and block.title), None)
    own_title = _fact(parsed.facts, "title")
    title = own_title or first or Path(name).stem.replace("-", " ").replace("_", " ")
    description = _fact(parsed.facts, "description")
    spans = chunk(parsed, cutting.least, cutting.most, cutting.overlap)
    anchors = anchors_of(parsed, spans, name) if cutting.drafts else [()] * len(spans)
    starts = [block.start for block in parsed.blocks]
    for number, span in enumerate(spans):
        text = parsed.text[span.start : span.end]
        passage = Passage(
            f"{name}#{number}",
            text,
            name,
            category,
            title,
            span.path,
            number,
            span.start,
            span.end,
        )
        if cutting.drafts:
            blocks = parsed.blocks[bisect_left(starts, span.start) : bisect_left(starts, span.end)]
            passage = replace(
                passage,
                drafts=drafts_of(parsed, blocks, span, title, *(() if number else (own_title, description))),
                sections=sections_of(span),
                anchors=anchors[number],
                links=tuple(links_in(text, name)),
            )
        yield passage


def _fact(facts: dict[str, Any], name: str) -> str | None:
    value = facts.get(name)
    return " ".join(value.split()) if isinstance(value, str) and value.strip() else None


def _python(text: str, name: str, category: str | None, cutting: Cutting) -> Iterator[Passage | Reject]:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # the last: a parser's full stack
        yield Reject(name, getattr(error, "lineno", None) or 1, f"not Python: {error}")
        return
    for number, found in enumerate(functions(tree, text, keep_docstring=cutting.docstrings)):
        drafts = (Draft("docstring", (found.summary,)),) if found.summary and cutting.drafts else ()
        yield Passage(
            f"{name}#{found.name}:{found.line}",
            found.source,
            name,
            category,
            found.name,
            found.path,
            number,
            found.line,
            found.last_line,
            drafts,
        )
