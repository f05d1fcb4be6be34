"""What a source is: rows (files, folders, judged and prepared sets) or documents to be cut into passages."""

from collections import Counter
from itertools import islice
from pathlib import Path

from core.data.columns import PAIRS, QUERY_NAMES, TEXT_NAMES, plain_name
from core.data.documents import DOCUMENT_FORMATS
from core.data.folders import split_files
from core.data.judged import is_judged
from core.data.pairs import is_dataset
from core.data.readers import format_of, read_rows
from core.data.rows import Row
from core.errors import BadData
from core.spec.prepare import Format

_BY_ENDING: dict[str, Format] = {
    ".md": "markdown",
    ".markdown": "markdown",
    ".mdx": "markdown",
    ".rst": "rst",
    ".py": "python_source",
    ".txt": "markdown",
}
_LOOKED_AT = 20_000
_JUDGED = ("beir", "trec", "msmarco", "bright", "bright_long")


def settle_format(path: Path, asked: Format, *, rows: bool = False) -> tuple[Format, Path]:
    """How a source is read, and where: one of `DOCUMENT_FORMATS`, or another for rows. Raises `BadData`.

    ``rows``: its records are known to have queries, whatever they are called.
    """
    if is_dataset(path):
        from core.data.dataset import read_facts  # Parquet's library is the worker's

        return (
            ("chunks", path / "chunks.parquet")
            if read_facts(path).get("type") == "chunks"
            else ("rows", path)
        )
    if asked in _JUDGED and not is_judged(path):
        raise BadData(
            f"{path.name} is not {asked}: documents, queries and judgments are needed (docs/data.md)"
        )
    if asked != "auto":
        return asked, path
    if path.is_file():
        ending = path.suffix.lower()
        if ending in _BY_ENDING:
            return _BY_ENDING[ending], path
        return ("chunks" if not rows and format_of(path) and _are_chunks(path) else "rows"), path
    if is_judged(path):
        return "rows", path
    files = [file for found in split_files(path).values() for file in found]
    documents = _documents(path)
    if sum(documents.values()) > len(files):
        return documents.most_common(1)[0][0], path
    if not files:
        raise BadData(f"{path} holds neither rows, nor a judged set, nor documents that are known here")
    return ("chunks" if not rows and all(map(_are_chunks, files)) else "rows"), path


def is_documents(form: Format) -> bool:
    return form in DOCUMENT_FORMATS


def _documents(folder: Path) -> Counter[Format]:
    names = islice((path for path in folder.rglob("*") if path.suffix.lower() in _BY_ENDING), _LOOKED_AT)
    return Counter(_BY_ENDING[path.suffix.lower()] for path in names)


def _are_chunks(file: Path) -> bool:
    """Whether the first record is a text of nobody's query."""
    first = next((row for row in islice(read_rows(file), 3) if isinstance(row, Row)), None)
    if first is None:
        return False
    names = {plain_name(name) for name in first.values}
    queries = {*QUERY_NAMES, *(first for first, _ in PAIRS)}
    return bool(names & set(TEXT_NAMES)) and not names & queries
