"""Retrieval sets: queries, a corpus, and which document answers which query. BEIR folders and pair files."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from core.data.readers import Reject, Row, check_text, read_rows
from core.errors import BadData

_ENDINGS = ("", ".gz", ".zst")


@dataclass
class RetrievalSet:
    """Texts by id, and grades by query and document (0 is judged irrelevant)."""

    queries: dict[str, str] = field(default_factory=dict)
    corpus: dict[str, str] = field(default_factory=dict)
    qrels: dict[str, dict[str, int]] = field(default_factory=dict)
    rejects: int = 0


def is_beir(path: Path) -> bool:
    """Whether a folder has a corpus, queries and a folder of qrels."""
    return path.is_dir() and all(_find(path, name) for name in ("corpus.jsonl", "queries.jsonl"))


def read_beir(folder: Path, split: str) -> RetrievalSet:
    """A split of a BEIR folder: its judged queries and the whole corpus.

    Layout (Thakur et al. 2021, arXiv 2104.08663): ``corpus.jsonl`` {_id, title, text}, ``queries.jsonl``
    {_id, text}, ``qrels/SPLIT.tsv`` with a header line. Raises `BadData` for judgments that name
    documents or queries that are not there, and for unreadable lines: a corpus with holes makes wrong scores.
    """
    qrels_path = _find(folder / "qrels", f"{split}.tsv")
    if qrels_path is None:
        have = sorted(path.name.split(".")[0] for path in (folder / "qrels").glob("*.tsv*"))
        raise BadData(f"{folder.name} has no split {split!r}; it has {', '.join(have) or 'no qrels'}")
    corpus = {_id(row): _text(row, "title", "text") for row in _strictly(folder, "corpus.jsonl")}
    queries = {_id(row): _text(row, "text") for row in _strictly(folder, "queries.jsonl")}
    found = RetrievalSet(corpus=corpus)
    for query_id, document_id, grade in _qrels(qrels_path):
        for wanted, there, what in ((query_id, queries, "query"), (document_id, corpus, "document")):
            if wanted not in there:
                raise BadData(f"{qrels_path.name} judges {what} {wanted!r}, which is not in {folder.name}")
        found.queries[query_id] = queries[query_id]
        found.qrels.setdefault(query_id, {})[document_id] = grade
    if not any(grade > 0 for judged in found.qrels.values() for grade in judged.values()):
        raise BadData(f"{qrels_path.name} has no relevant document for any query")
    return found


def _qrels(path: Path) -> Iterator[tuple[str, str, int]]:
    for row in read_rows(path):
        if isinstance(row, Reject):
            raise BadData(f"{row.file}, line {row.line}: {row.reason}")
        values = list(row.values.values())
        try:
            query_id, document_id, grade = values
            yield str(query_id), str(document_id), int(grade)
        except ValueError as error:
            raise BadData(f"{row.file}, line {row.line}: query-id, corpus-id and score are needed") from error


def _strictly(folder: Path, name: str) -> Iterator[Row]:
    path = _find(folder, name)
    assert path is not None, "is_beir has seen it"
    for row in read_rows(path):
        if isinstance(row, Reject):
            raise BadData(f"{row.file}, line {row.line}: {row.reason}")
        yield row


def _text(row: Row, *names: str) -> str:
    """The named fields, each on a line of its own; missing and empty ones are left out."""
    parts = [row.values[name] for name in names if row.values.get(name)]
    try:
        if not all(isinstance(part, str) for part in parts):
            raise ValueError(f"{' and '.join(names)} must be text")
        return "\n".join(check_text(part) for part in parts)
    except ValueError as error:
        raise BadData(f"{row.file}, line {row.line}: {error}") from error


def _id(row: Row) -> str:
    identifier = row.values.get("_id")
    if identifier is None:
        raise BadData(f"{row.file}, line {row.line}: there is no _id")
    return str(identifier)


def _find(folder: Path, name: str) -> Path | None:
    return next((path for ending in _ENDINGS if (path := folder / f"{name}{ending}").exists()), None)
