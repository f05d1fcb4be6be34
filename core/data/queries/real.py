"""Queries that people have asked, with the documents that answered them: the ones that judge."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from core.data.documents.links import page_name
from core.data.documents.passage import Passage
from core.data.io.folders import split_files
from core.data.io.readers import read_rows
from core.data.rows.columns import QUERY_NAMES
from core.data.rows.row import Reject, Row, check_text
from core.errors import BadData

_DOCUMENT_NAMES = (
    "document",
    "document_id",
    "doc",
    "doc_id",
    "docid",
    "url",
    "path",
    "page",
    "file",
    "passage_id",
    "positive_id",
    "clicked",
)


_PAGE = "page:"
_OF_PASSAGE = re.compile(r"#\d+$")
"""What the ids of passages end with that are cut from documents."""

_MOST_FOLDERS = 3
"""Folders at the beginning of a URL's path that a tree of documents may lack: /docs/en/, for example."""


@dataclass(frozen=True)
class RealQuery:
    """``names``: what its document may be called, the most exact name first."""

    text: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class ResolvedQueries:
    """Queries by the name of their passage, document or page.

    ``unknown``: documents that are not there. ``whole``: passages that are not there, of documents that are:
    the whole document answers.
    """

    by_name: dict[str, list[str]]
    unknown: list[str]
    whole: list[str]
    example: str  # a document that is there

    def of(self, passage: Passage) -> list[str]:
        """The queries that a passage answers. A document that is named is answered by all of its passages."""
        found = (query for name in _names_of(passage) for query in self.by_name.get(name, ()))
        return list(dict.fromkeys(found))


def resolve(queries: list[RealQuery], passages: Iterable[Passage]) -> ResolvedQueries:
    """Find the document of each query: the first of its names that a passage has."""
    there: set[str] = set()
    example = ""
    for passage in passages:
        example = example or passage.document
        there.update(_names_of(passage))
    by_name: dict[str, list[str]] = defaultdict(list)
    unknown, whole = [], []
    for query in queries:
        name = next((name for name in query.names if name in there), None)
        if name is None:
            unknown.append(query.names[0])
        else:
            by_name[name].append(query.text)
            if name != query.names[0] and _OF_PASSAGE.search(query.names[0]):
                whole.append(query.names[0])
    return ResolvedQueries(dict(by_name), unknown, whole, example)


def _names_of(passage: Passage) -> tuple[str, ...]:
    return passage.id, passage.document, _PAGE + page_name(passage.document)


def read_real_queries(path: Path, encoding: str | None = None) -> list[RealQuery]:
    """Read rows of query and document. Raises `BadData` for rows that cannot be used."""
    files = [file for some in split_files(path).values() for file in some] if path.is_dir() else [path]
    found = []
    for file in files:
        for row in read_rows(file, encoding):
            if isinstance(row, Reject):
                raise BadData(f"{row.file}, line {row.line}: {row.reason}")
            found.append(_query_of(row))
    if not found:
        raise BadData(f"{path.name} has no rows")
    return found


def _query_of(row: Row) -> RealQuery:
    values = {name.strip().lower(): value for name, value in row.values.items()}
    query = next((values[name] for name in QUERY_NAMES if values.get(name)), None)
    document = next((values[name] for name in _DOCUMENT_NAMES if values.get(name)), None)
    if not isinstance(query, str) or not query.strip() or document is None:
        raise BadData(
            f"{row.file}, line {row.line}: a row needs a query ({', '.join(QUERY_NAMES[:3])}) and the "
            f"document that answers it ({', '.join(_DOCUMENT_NAMES[:6])}); it has {', '.join(row.values)}"
        )
    name = str(document).strip()
    try:
        return RealQuery(check_text(query.strip()), (check_text(name), *_pages_of(name)))
    except ValueError as error:
        raise BadData(f"{row.file}, line {row.line}: {error}") from error


def _pages_of(name: str) -> Iterator[str]:
    """The pages that a path or a URL may mean: its path, and its path without the first folders."""
    parts = [part for part in page_name(urlsplit(name).path).split("/") if part]
    for first in range(min(len(parts), _MOST_FOLDERS + 1)):
        yield _PAGE + "/".join(parts[first:])
