"""Chunks that somebody has cut: rows of a text, with a title, a header path, a category, a document."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from core.data.documents.drafts import first_sentence, is_question, one_line, title_forms
from core.data.documents.passage import Draft, Passage
from core.data.io.folders import split_files
from core.data.io.readers import read_rows
from core.data.rows.columns import ID_NAMES, TEXT_NAMES
from core.data.rows.reading import Reading
from core.data.rows.record import id_of
from core.data.rows.row import Reject, Row, check_text
from core.spec.parts.queries import QueryKind

_PATH_NAMES = ("header_path", "headers", "headings", "breadcrumbs", "section_path", "path")
_DOCUMENT_NAMES = ("document", "source", "filename", "file", "url", "doc")
_DESCRIPTION_NAMES = ("description", "summary", "docstring", "question")


def ready_made(path: Path, category: str | None, reading: Reading) -> Iterator[Passage | Reject]:
    """The chunks of a file or a folder: {text, title, header path, category, document, queries}."""
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
            yield _chunk_of(_plain_chunk(row, columns), category, numbers, document)
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


def _chunk_of(row: Row, category: str | None, numbers: dict[str, int], unnamed: str) -> Passage:
    values = row.values
    text = next((values[name] for name in TEXT_NAMES if isinstance(values.get(name), str)), None)
    if text is None or not text.strip():
        raise ValueError(f"a chunk has no text (one of {', '.join(TEXT_NAMES)})")
    check_text(text)
    text = text.strip()
    path = _header_path(values)
    title = next((str(values[name]) for name in ("title", "heading", "name") if values.get(name)), None)
    document = next((str(values[name]) for name in _DOCUMENT_NAMES if values.get(name)), None)
    document = document or title or (path[0] if path else unnamed)
    number = numbers[document] = numbers.get(document, -1) + 1
    own = values.get("category")
    name = id_of(values) or f"{document}#{number}"
    times = numbers[f"\0{name}"] = numbers.get(f"\0{name}", 0) + 1
    return Passage(
        name if times == 1 else f"{name}~{times}",  # an id that comes twice is no id
        text,
        document,
        str(own) if isinstance(own, str | int) and str(own).strip() else category,
        title,
        path,
        number,
        drafts=tuple(_drafts(values, text, title, path)),
        sections=((0, len(text)),),
    )


def _drafts(values: dict[str, Any], text: str, title: str | None, path: tuple[str, ...]) -> Iterator[Draft]:
    """The queries that stand beside a chunk; without any, what its other columns say of it."""
    given = values.get("queries") or []
    given = [given] if isinstance(given, str) else given
    if not isinstance(given, list) or not all(isinstance(query, str) for query in given):
        raise ValueError(f"queries are a list of texts, not {str(given)[:60]!r}")
    queries = dict.fromkeys(check_text(query).strip() for query in given)
    for query in filter(None, queries):
        yield Draft("given", (query,))
    if given:
        return
    described = next((str(values[name]) for name in _DESCRIPTION_NAMES if values.get(name)), "")
    if check_text(described).strip():
        yield Draft("description", (described.strip(),))
    titles = path or ((title,) if title else ())
    if titles:
        said = _said_at_the_beginning(text, titles[-1])
        kind: QueryKind = "questions" if is_question(titles[-1]) else "titles"
        if forms := title_forms(title or titles[0], titles):
            yield Draft(kind, forms, said)
    if (span := first_sentence(text, len(text))) is not None:
        yield Draft("first_sentence", (one_line(text[slice(*span)]),), (span,))


def _said_at_the_beginning(text: str, title: str) -> tuple[tuple[int, int], ...]:
    """The title, where a text begins with it: it says nothing new of what answers it."""
    begins = text[: len(title)].lower() == title.lower() and len(title) < len(text)
    return ((0, len(title)),) if begins else ()


def _header_path(values: dict[str, Any]) -> tuple[str, ...]:
    """A list of titles, or a text in which they stand behind each other with > between them."""
    found: Any = next((values[name] for name in _PATH_NAMES if values.get(name)), [])
    if isinstance(found, str):
        separator = next((mark for mark in (" > ", " / ", " | ") if mark in found), None)
        found = found.split(separator) if separator else [found]
    if not isinstance(found, list) or not all(isinstance(part, str) for part in found):
        raise ValueError(f"a header path is a list of titles, not {str(found)[:60]!r}")
    return tuple(check_text(part.strip()) for part in found if part.strip())
