"""Documents on disk -> passages with what asks for them: trees of Markdown, reStructuredText and Python,
chunk files."""

import ast
import codecs
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.data.documents.chunking import Passage, Span, chunk, sentences
from core.data.documents.python_source import SKIPPED_FOLDERS, functions
from core.data.documents.text_blocks import PARSERS, Parsed
from core.data.io.folders import split_files
from core.data.io.packing import TreeFile, tree_files
from core.data.io.readers import as_text, read_rows
from core.data.io.stopping import no_stop
from core.data.io.trees import common_folder, ending
from core.data.rows.columns import ID_NAMES, TEXT_NAMES
from core.data.rows.reading import Reading
from core.data.rows.record import id_of
from core.data.rows.row import Reject, Row, check_text
from core.errors import BadData
from core.spec.prepare import Format, PrepareSpec, Queries

DOCUMENT_FORMATS: tuple[Format, ...] = ("markdown", "rst", "python_source", "chunks")
TREES: tuple[Format, ...] = ("markdown", "rst", "python_source")
"""Formats whose documents are files of their own."""

_ENDINGS = {
    "markdown": (".md", ".markdown", ".mdx", ".txt"),
    "rst": (".rst", ".txt"),
    "python_source": (".py",),
}
_PATH_NAMES = ("header_path", "headers", "headings", "breadcrumbs", "section_path", "path")
_DOCUMENT_NAMES = ("document", "source", "filename", "file", "url", "doc")
_DESCRIPTION_NAMES = ("description", "summary", "docstring", "question")
_MOST_BYTES = 64 << 20
_LEAST_SECTION = 40
"""Letters and digits that a section must have, links left aside, for its title to be a question."""

_LEAST_TEXT = 20
"""Characters that must be left of a passage when what asks for it is taken out."""


@dataclass(frozen=True)
class Cutting:
    """How documents become passages."""

    least: int
    most: int
    overlap: int
    queries: Queries

    @classmethod
    def of(cls, spec: PrepareSpec) -> "Cutting":
        least, most = spec.passage_characters
        queries = spec.queries
        if spec.task == "chunks":  # passages as they stand in the documents
            queries = queries.model_copy(update={"hide": False})
        return cls(least, most, spec.chunking.overlap, queries)


AS_WRITTEN = Cutting(3000, 5000, 0, Queries(hide=False))
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
        yield from _ready_made(path, category, cutting, reading)
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
        others.update(ending(file.name) for file in files)
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
    title = _fact(parsed.facts, "title") or first or Path(name).stem.replace("-", " ").replace("_", " ")
    description = _fact(parsed.facts, "description")
    for number, span in enumerate(chunk(parsed, cutting.least, cutting.most, cutting.overlap)):
        asked, hidden = _questions(
            parsed.text, span, title, description if number == 0 else None, cutting.queries
        )
        text = (
            _without(parsed.text, span, hidden)
            if cutting.queries.hide
            else parsed.text[span.start : span.end]
        )
        yield Passage(
            f"{name}#{number}",
            text.strip(),
            name,
            category,
            title,
            span.path,
            number,
            span.start,
            span.end,
            asked,
        )


def _fact(facts: dict[str, Any], name: str) -> str | None:
    value = facts.get(name)
    return " ".join(value.split()) if isinstance(value, str) and value.strip() else None


def _questions(
    text: str, span: Span, title: str, description: str | None, asked: Queries
) -> tuple[list[str], list[tuple[int, int]]]:
    """What asks for a passage, and which parts of the text say just that."""
    found: list[str] = []
    hidden: list[tuple[int, int]] = []
    named: set[str] = set()
    if description and "descriptions" in asked.of:
        found.append(description)
    if "headings" in asked.of:
        ends = [*(heading.start for heading in span.headings[1:]), span.end]
        for heading, end in zip(span.headings, ends, strict=False):
            above = heading.path[-2] if len(heading.path) > 1 else title
            question = with_title(above, heading.path[-1])
            wanted = len(found) < asked.per_passage and question and question not in found
            if wanted and _says_something(text[heading.end : end]):
                found.append(question)
                named |= {heading.path[-1], above}
        # The titles in a question say nothing new of what answers it, wherever they stand.
        hidden += [(heading.start, heading.end) for heading in span.headings if heading.path[-1] in named]
    if "first_sentences" in asked.of or not found:
        sentence = _first_sentence(text, span)
        if sentence is not None and len(found) < asked.per_passage:
            words = " ".join(text[sentence[0] : sentence[1]].split())
            if words not in found:
                found.append(words)
                hidden.append(sentence)
    return found[: asked.per_passage], hidden


_LETTER = re.compile(r"[^\W_]")
_LOOKED_AT = 2000
_LINKS = re.compile(r"\[[^\]]*\]\([^)]*\)|`[^`]*`_{1,2}|:\w+:`[^`]*`|https?://\S+")


def _says_something(body: str) -> bool:
    """Whether a section is more than a list of links, as "See also" is."""
    return len(_LETTER.findall(_LINKS.sub("", body[:_LOOKED_AT]))) >= _LEAST_SECTION


def with_title(title: str, heading: str) -> str:
    """A heading that can stand alone: many documents have a section called Remarks."""
    if not heading:
        return ""
    known = title.lower()
    return heading if known in heading.lower() or heading.lower() == known else f"{title}: {heading}"


def _first_sentence(text: str, span: Span) -> tuple[int, int] | None:
    """The first sentence behind the headings that begin a passage, if it leaves anything to be found."""
    begin = span.start + span.repeated
    for heading in span.headings:
        if heading.start <= begin:
            begin = heading.end
    body = text[begin : span.end]
    first = next(
        ((begin + start, begin + end) for start, end in sentences(body) if body[start:end].strip()), None
    )
    if first is None or first[1] - first[0] > 500 or "```" in text[first[0] : first[1]]:
        return None
    left = span.end - span.start - (first[1] - first[0])
    return first if left >= 2 * (first[1] - first[0]) else None


def _without(text: str, span: Span, hidden: list[tuple[int, int]]) -> str:
    """The passage without the hidden parts, if enough is left of it."""
    parts, begin = [], span.start
    for start, end in sorted(hidden):
        parts.append(text[begin:start])
        begin = end
    parts.append(text[begin : span.end])
    joined = "".join(parts)
    return joined if len(joined.strip()) >= _LEAST_TEXT else ""


def _python(text: str, name: str, category: str | None, cutting: Cutting) -> Iterator[Passage | Reject]:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # the last: a parser's full stack
        yield Reject(name, getattr(error, "lineno", None) or 1, f"not Python: {error}")
        return
    for number, found in enumerate(functions(tree, text, keep_docstring=not cutting.queries.hide)):
        asked = [found.summary] if found.summary else []
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
            asked,
        )


def _ready_made(
    path: Path,
    category: str | None,
    cutting: Cutting,
    reading: Reading,
) -> Iterator[Passage | Reject]:
    """Chunks that somebody has cut: {text, title, header path, category, document}, in a file or a folder."""
    numbers: dict[str, int] = {}
    files = [file for some in split_files(path).values() for file in some] if path.is_dir() else [path]
    columns = {role: str(name) for role, name in reading.columns.items()}
    used = {*_CHUNK_COLUMNS, *columns.values()}
    rows = (row for file in files for row in read_rows(file, reading.encoding, report=reading.report))
    for row in rows:
        if isinstance(row, Reject):
            yield row
            continue
        try:
            # Of several files each may be a document; rows of one that name none are documents themselves.
            document = row.file if len(files) > 1 else f"{row.file}:{row.line}"
            reading.report.unused.update(row.values.keys() - used)
            yield _chunk_of(_plain_chunk(row, columns), category, cutting.queries, numbers, document)
        except ValueError as error:
            yield Reject(row.file, row.line, str(error))


_CHUNK_COLUMNS = {
    *TEXT_NAMES,
    *ID_NAMES,
    *_PATH_NAMES,
    *_DOCUMENT_NAMES,
    *_DESCRIPTION_NAMES,
    *("title", "heading", "name", "category", "queries", "metadata"),
}
_CHUNK_NAMES = {"positive": "text", "query": "queries", "group": "document", "category": "category"}


def _plain_chunk(row: Row, columns: Mapping[str, str]) -> Row:
    """With what stands in ``metadata``, as LangChain has it, and under the names that were said."""
    inner = row.values.get("metadata")
    values = {**inner, **row.values} if isinstance(inner, dict) else dict(row.values)
    for name, there in columns.items():
        if there in values and name in _CHUNK_NAMES:
            values[_CHUNK_NAMES[name]] = values[there]
    for name in (*_PATH_NAMES, *_DOCUMENT_NAMES, "title", "heading", "name", "category"):
        if isinstance(values.get(name), str):
            check_text(values[name])
    return Row(row.file, row.line, values)


def _chunk_of(
    row: Row, category: str | None, asked: Queries, numbers: dict[str, int], unnamed: str
) -> Passage:
    values = row.values
    text = next((values[name] for name in TEXT_NAMES if isinstance(values.get(name), str)), None)
    if text is None or not text.strip():
        raise ValueError(f"a chunk has no text (one of {', '.join(TEXT_NAMES)})")
    check_text(text)
    path = _header_path(values)
    title = next((str(values[name]) for name in ("title", "heading", "name") if values.get(name)), None)
    document = next((str(values[name]) for name in _DOCUMENT_NAMES if values.get(name)), None)
    document = document or title or (path[0] if path else unnamed)
    number = numbers[document] = numbers.get(document, -1) + 1
    own = values.get("category")
    given = values.get("queries") or []
    given = [given] if isinstance(given, str) else given
    if not isinstance(given, list) or not all(isinstance(query, str) for query in given):
        raise ValueError(f"queries are a list of texts, not {str(given)[:60]!r}")
    queries = [check_text(query) for query in given]
    if not queries and "descriptions" in asked.of:
        queries += [check_text(str(values[name])) for name in _DESCRIPTION_NAMES if values.get(name)][:1]
    if not values.get("queries") and "headings" in asked.of and (heading := path[-1] if path else title):
        queries.append(with_title(path[0] if len(path) > 1 else title or heading, heading))
    if not queries:
        queries = [" ".join(text[start:end].split()) for start, end in sentences(text)[:1]]
    name = id_of(values) or f"{document}#{number}"
    times = numbers[f"\0{name}"] = numbers.get(f"\0{name}", 0) + 1
    return Passage(
        name if times == 1 else f"{name}~{times}",  # an id that comes twice is no id
        text.strip(),
        document,
        str(own) if isinstance(own, str | int) and str(own).strip() else category,
        title,
        path,
        number,
        queries=list(dict.fromkeys(query.strip() for query in queries if query.strip()))[: asked.per_passage],
    )


def _header_path(values: dict[str, Any]) -> tuple[str, ...]:
    """A list of titles, or a text in which they stand behind each other with > between them."""
    found: Any = next((values[name] for name in _PATH_NAMES if values.get(name)), [])
    if isinstance(found, str):
        separator = next((mark for mark in (" > ", " / ", " | ") if mark in found), None)
        found = found.split(separator) if separator else [found]
    if not isinstance(found, list) or not all(isinstance(part, str) for part in found):
        raise ValueError(f"a header path is a list of titles, not {str(found)[:60]!r}")
    return tuple(part.strip() for part in found if part.strip())
