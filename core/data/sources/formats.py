"""What a source is: rows (files, folders, judged and prepared sets) or documents to be cut into passages."""

from collections import Counter
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path

from core.data.documents.passages import DOCUMENT_FORMATS
from core.data.io.folders import split_files
from core.data.io.packing import is_packed, packed_names
from core.data.io.readers import format_of, read_rows
from core.data.io.stopping import no_stop
from core.data.io.trees import ending, walk
from core.data.retrieval_sets.judged_folders import is_judged
from core.data.retrieval_sets.nested import is_retrieval_json
from core.data.rows.columns import PAIRS, QUERY_NAMES, TEXT_NAMES, plain_name
from core.data.rows.row import Row
from core.data.training_rows.pairs import DATASET_FACTS, is_dataset
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
_ENDINGS_TOLD = 5
_OTHER_SETS = (DATASET_FACTS, "dataset_dict.json", "state.json")
_JUDGED = ("beir", "trec", "msmarco", "bright", "bright_long")


def settle_format(
    path: Path, asked: Format, *, rows: bool = False, check_stop: Callable[[], None] = no_stop
) -> tuple[Format, Path]:
    """Return how a source is read, and where: one of `DOCUMENT_FORMATS`, or another for rows.

    ``rows``: its records are known to have queries, whatever they are called. Raises `BadData`.
    """
    if is_dataset(path):
        from core.data.training_rows.page import read_page

        return ("chunks", path / "chunks.parquet") if read_page(path).type == "chunks" else ("rows", path)
    if asked == "auto" and is_packed(path) and (form := documents_by_name(packed_names(path))):
        return form, path
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
        if is_retrieval_json(path):
            return "rows", path
        return ("chunks" if not rows and format_of(path) and _are_chunks(path) else "rows"), path
    if is_judged(path):
        return "rows", path
    files = [file for found in split_files(path).values() for file in found]
    documents, others = _documents(path, check_stop)
    if sum(documents.values()) > len(files):
        return documents.most_common(1)[0][0], path
    if not files:
        raise BadData(_nothing_known(others))
    return ("chunks" if not rows and all(_are_chunks(file, check_stop) for file in files) else "rows"), path


def documents_by_name(names: Iterable[str]) -> Format | None:
    """The format of a tree's documents, when the names of its files show that it is nothing else."""
    found: Counter[Format] = Counter()
    rows = 0
    folders = set()
    for name in names:
        top, _, below = name.partition("/")
        if below:
            folders.add(top)
        if top.startswith("qrels") or name in _OTHER_SETS:
            return None
        if (end := ending(name)) in _BY_ENDING:
            found[_BY_ENDING[end]] += 1
        else:
            rows += format_of(Path(name)) is not None
    is_brights = "examples" in folders and folders & {"documents", "long_documents"}
    return found.most_common(1)[0][0] if found.total() > rows and not is_brights else None


def is_documents(form: Format) -> bool:
    return form in DOCUMENT_FORMATS


def _documents(folder: Path, check_stop: Callable[[], None]) -> tuple[Counter[Format], Counter[str]]:
    """Files by format of document, and the other files by the ending of their names."""
    found: Counter[Format] = Counter()
    others: Counter[str] = Counter()
    for name in walk(folder, enter=lambda name: not name.startswith("."), check_stop=check_stop):
        if name.rpartition("/")[2].startswith("."):
            continue
        end = ending(name)
        if end in _BY_ENDING:
            found[_BY_ENDING[end]] += 1
        elif len(others) < _ENDINGS_TOLD or end in others:
            others[end] += 1
    return found, others


def _nothing_known(others: Counter[str]) -> str:
    endings = ", ".join(f"{count} {end or 'without an ending'}" for end, count in others.most_common())
    has = f"it has files with other endings: {endings}" if others else "it has no file that is not hidden"
    return (
        "the folder has neither rows (JSONL, JSON, CSV, TSV, Parquet, Arrow), nor a judged set, nor "
        f"documents (Markdown, reStructuredText, Python, text): {has}"
    )


def _are_chunks(file: Path, check_stop: Callable[[], None] = no_stop) -> bool:
    """Whether the first record has a text and no query."""
    check_stop()
    first = next((row for row in islice(read_rows(file), 3) if isinstance(row, Row)), None)
    if first is None:
        return False
    names = {plain_name(name) for name in first.values}
    queries = {*QUERY_NAMES, *(first for first, _ in PAIRS)}
    return bool(names & set(TEXT_NAMES)) and not names & queries
