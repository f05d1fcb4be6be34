"""Retrieval sets: queries, a corpus, and which document answers which query.

BEIR folders (Thakur et al. 2021, arXiv 2104.08663), MS MARCO's and TREC's files, and BRIGHT's
(arXiv 2407.12883) are one thing here: files of documents, files of queries, and judgments.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import zstandard

from core.data.folders import split_files
from core.data.lookup import Texts
from core.data.readers import Reject, Row, check_text, format_of, open_text, read_rows
from core.data.record import ID_NAMES, QUERY_NAMES, TEXT_NAMES, TrainingRow, document_text, id_of
from core.errors import BadData
from core.native_errors import unreadable

_CORPUS = ("corpus", "collection", "documents", "docs")
_ENDINGS = ("", ".gz", ".zst")
_TREC = (".trec", ".sgml", ".xml", ".topics")
_QRELS_HEADING = ("query-id", "query_id", "qid", "query", "topic")
_TEXT = (".txt", ".qrels", ".test", *_TREC)
_HEADER = {name.lower() for name in (*ID_NAMES, *QUERY_NAMES, *TEXT_NAMES, "title", "url")}


@dataclass
class RetrievalSet:
    """Texts by id, and grades by query and document (0 is judged irrelevant).

    ``excluded`` are documents that a query's ranking must leave out; ``categories`` are those of queries.
    """

    queries: dict[str, str] = field(default_factory=dict)
    corpus: dict[str, str] = field(default_factory=dict)
    qrels: dict[str, dict[str, int]] = field(default_factory=dict)
    rejects: int = 0
    excluded: dict[str, set[str]] = field(default_factory=dict)
    categories: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Judgment:
    """A line of the qrels, and where it stands."""

    query: str
    document: str
    grade: int
    file: str
    line: int


@dataclass(frozen=True)
class JudgedFiles:
    """Where a retrieval set lies: one domain of it, for BRIGHT."""

    corpus: list[Path]
    queries: list[Path]
    qrels: Path | None
    domain: str = ""
    long: bool = False
    encoding: str | None = None

    def documents(self, rejects: list[Reject] | None = None) -> Iterator[tuple[str, str]]:
        """Every (id, text) of the corpus. What cannot be read goes to ``rejects``, or raises `BadData`."""
        for path in self.corpus:
            yield from read_texts(path, self.encoding, rejects)

    def questions(self, rejects: list[Reject] | None = None) -> Iterator[tuple[str, str]]:
        """Every (id, text) of the queries, in the same way."""
        for path in self.queries:
            yield from read_texts(path, self.encoding, rejects)

    def judgments(self) -> Iterator[Judgment]:
        """In the order of the file. Raises `BadData`."""
        if self.qrels is not None:
            yield from _qrels(self.qrels, self.encoding)
            return
        for row in self.examples():
            for document in _names(row, "gold_ids_long" if self.long else "gold_ids"):
                yield Judgment(_id(row), str(document), 1, row.file, row.line)

    def examples(self) -> Iterator[Row]:
        """BRIGHT's queries with all that is known of them."""
        for path in self.queries:
            yield from _strictly(path, self.encoding)

    def excluded(self) -> dict[str, set[str]]:
        """Documents that a query's ranking must leave out, where it has any. BRIGHT writes N/A for none."""
        if self.qrels is not None:
            return {}
        found = {_id(row): set(_names(row, "excluded_ids")) for row in self.examples()}
        return {query: names - {"N/A"} for query, names in found.items() if names - {"N/A"}}


def is_judged(path: Path) -> bool:
    """Whether a folder has a corpus, queries and judgments, or is BRIGHT's."""
    return path.is_dir() and (is_bright(path) or bool(_corpus(path) and splits_of(path)))


def splits_of(folder: Path) -> dict[str, Path]:
    """Judgments by split: qrels/SPLIT.tsv, qrels.SPLIT.tsv, or one file of them, which is the test's."""
    found: dict[str, Path] = {}
    inside = folder / "qrels"
    for path in sorted(inside.iterdir()) if inside.is_dir() else []:
        if _readable(path):
            found.setdefault(_stem(path.name), path)
    for path in sorted(folder.glob("qrels[.-_]*")):
        if path.is_file() and (_readable(path) or path.suffix in ("", ".dev", ".train")):
            found.setdefault(_stem(path.name)[len("qrels") + 1 :] or "test", path)
    if not found and (alone := _named(folder, "qrels")):
        found["test"] = alone
    return found


def is_bright(path: Path) -> bool:
    return (path / "examples").is_dir() and any(
        (path / name).is_dir() for name in ("documents", "long_documents")
    )


def judged_files(
    folder: Path, split: str | None, *, long: bool = False, encoding: str | None = None
) -> list[JudgedFiles]:
    """The files of a split, or of every domain of BRIGHT unless ``split`` names one. Raises `BadData`.

    ``long``: BRIGHT's whole pages in place of passages.
    """
    if is_bright(folder):
        name = "long_documents" if long else "documents"
        if not (folder / name).is_dir():
            raise BadData(f"{folder.name} has no {name}")
        documents, examples = split_files(folder / name), split_files(folder / "examples")
        chosen = [domain for domain in examples if split in (None, domain)]
        if not chosen:
            raise BadData(f"{folder.name} has no domain {split!r}; it has {', '.join(examples) or 'none'}")
        if missing := [domain for domain in chosen if domain not in documents]:
            raise BadData(f"{folder.name}: {name} has no domain {', '.join(missing)}")
        return [
            JudgedFiles(documents[domain], examples[domain], None, domain, long, encoding)
            for domain in chosen
        ]
    split = split or "train"
    qrels = splits_of(folder).get(split) or _named(folder, "qrels")
    if qrels is None:
        raise BadData(
            f"{folder.name} has no split {split!r}; it has {', '.join(splits_of(folder)) or 'no qrels'} "
            "(split names the one to read)"
        )
    corpus, queries = _corpus(folder), _queries(folder, split)
    if not corpus or not queries:
        raise BadData(f"{folder.name} has no {'queries' if corpus else 'corpus'}")
    return [JudgedFiles(corpus, queries, qrels, encoding=encoding)]


def read_judged(folder: Path, split: str | None, *, long: bool = False) -> RetrievalSet:
    """A split: its judged queries and the whole corpus. Several domains are one set, keyed domain/id.

    Raises `BadData` for judgments that name documents or queries that are not there, and for unreadable
    lines: a corpus with holes makes wrong scores.
    """
    found = RetrievalSet()
    parts = judged_files(folder, split, long=long)
    for files in parts:
        prefix = f"{files.domain}/" if len(parts) > 1 else ""
        corpus = {prefix + name: text for name, text in files.documents()}
        queries = {prefix + name: text for name, text in files.questions()}
        found.corpus |= corpus
        for judgment in files.judgments():
            query, document = prefix + judgment.query, prefix + judgment.document
            for wanted, there, what in ((query, queries, "query"), (document, corpus, "document")):
                if wanted not in there:
                    raise BadData(f"{judgment.file} judges {what} {wanted!r}, which is not in {folder.name}")
            found.queries[query] = queries[query]
            found.qrels.setdefault(query, {})[document] = judgment.grade
            if files.domain:
                found.categories[query] = files.domain
        for query, names in files.excluded().items():
            found.excluded[prefix + query] = {prefix + name for name in names}
    if not any(grade > 0 for judged in found.qrels.values() for grade in judged.values()):
        raise BadData(f"{folder.name} has no relevant document for any query")
    return found


def judged_pairs(
    folder: Path,
    split: str | None,
    *,
    long: bool = False,
    encoding: str | None = None,
    counts: Counter[str] | None = None,
) -> Iterator[TrainingRow | Reject]:
    """A row for each relevant judgment, in the order of the judgments; a reject where a text is missing.

    ``counts`` grow by ids that have several texts, of which the first counts. Memory: the ids of relevant
    documents, and the queries; documents lie on disk meanwhile.
    """
    for files in judged_files(folder, split, long=long, encoding=encoding):
        relevant = [judgment for judgment in files.judgments() if judgment.grade > 0]
        asked = {judgment.query for judgment in relevant}
        rejects: list[Reject] = []
        queries: dict[str, str] = {}
        for name, text in files.questions(rejects):
            if name in asked:
                queries.setdefault(name, text)
        with Texts() as documents:
            wanted = {judgment.document for judgment in relevant}
            documents.add(files.documents(rejects), wanted=wanted)
            yield from rejects
            if counts is not None:
                counts["ids with several texts"] += documents.repeated
            for judgment in relevant:
                query, texts = queries.get(judgment.query, ""), documents.of(judgment.document)
                if not query.strip() or not texts or not texts[0].strip():
                    missing = (
                        f"document {judgment.document!r}" if query.strip() else f"query {judgment.query!r}"
                    )
                    yield Reject(judgment.file, judgment.line, f"{missing} is not there, or empty")
                else:
                    yield TrainingRow(
                        query,
                        texts[0],
                        category=files.domain or None,
                        query_id=judgment.query,
                        positive_id=judgment.document,
                    )


def read_texts(
    path: Path, encoding: str | None = None, rejects: list[Reject] | None = None
) -> Iterator[tuple[str, str]]:
    """Every (id, text) of a file of documents or queries: JSONL, Parquet, CSV with names; tab-separated
    (id, text) without; TREC's <DOC> and <top>.

    What cannot be read goes to ``rejects``; without it, raises `BadData`.
    """
    for found in _texts(path, encoding):
        if not isinstance(found, Reject):
            yield found
        elif rejects is None:
            raise BadData(f"{found.file}, line {found.line}: {found.reason}")
        else:
            rejects.append(found)


def _texts(path: Path, encoding: str | None) -> Iterator[tuple[str, str] | Reject]:
    if path.suffix.lower() in _TREC:
        yield from _trec(path, encoding)
    elif format_of(path) == "tsv" or path.suffix.lower() in _TEXT:
        yield from _tabbed(path, encoding)
    else:
        for row in read_rows(path, encoding):
            if isinstance(row, Reject):
                yield row
                continue
            name = id_of(row.values)
            try:
                if name is None:
                    raise ValueError("there is no _id")
                query = next((row.values[key] for key in QUERY_NAMES if key in row.values), None)
                text = query if isinstance(query, str) else document_text(row.values)
                yield check_text(name), check_text(text)
            except ValueError as error:
                yield Reject(row.file, row.line, str(error))


def _tabbed(path: Path, encoding: str | None) -> Iterator[tuple[str, str] | Reject]:
    for number, line in enumerate(_text_lines(path, encoding), 1):
        cells = line.rstrip("\r\n").split("\t")
        if number == 1 and len(cells) > 1 and {cell.lower() for cell in cells} <= _HEADER:
            continue
        if not line.strip():
            continue
        if len(cells) < 2:
            yield Reject(path.name, number, "an id, a tab and a text are needed")
            continue
        # MS MARCO's documents: id, url, title, body.
        parts = [part for part in (cells[2:] if len(cells) == 4 else cells[1:]) if part.strip()]
        yield _checked(cells[0], "\n".join(parts), path, number)


_TAGS = re.compile(r"<[^<>]*>")


def _trec(path: Path, encoding: str | None) -> Iterator[tuple[str, str] | Reject]:
    """<DOC> with <DOCNO>, <TITLE> and <TEXT>; <top> with <num> and <title>."""
    inside: list[str] = []
    for number, line in enumerate(_text_lines(path, encoding), 1):
        if re.match(r"\s*<(DOC|top)\b", line, re.IGNORECASE):
            inside = []
        inside.append(line)
        if re.search(r"</(DOC|top)>", line, re.IGNORECASE):
            block = "".join(inside)
            name = _field(block, "DOCNO") or _field(block, "num").removeprefix("Number:").strip()
            title = _field(block, "title") or _field(block, "headline")
            if not name:
                yield Reject(path.name, number, "an entry ends that has no number")
                continue
            text = "\n".join(part for part in (title, _field(block, "TEXT")) if part)
            yield _checked(name, text, path, number)


def _field(block: str, tag: str) -> str:
    """What stands after a tag, up to its end or the next one."""
    found = re.search(rf"<{tag}>(.*?)(?=</{tag}>|<(?:num|title|desc|narr)>|</top>|\Z)", block, re.S | re.I)
    return " ".join(_TAGS.sub(" ", found[1]).split()) if found else ""


def _qrels(path: Path, encoding: str | None) -> Iterator[Judgment]:
    """TREC's four columns, or BEIR's three with or without a heading."""
    for number, line in enumerate(_text_lines(path, encoding), 1):
        if not line.strip():
            continue
        cells = [cell.strip() for cell in (line.split("\t") if "\t" in line else line.split())]
        try:
            query, document, grade = cells if len(cells) == 3 else (cells[0], cells[2], cells[3])
            if not float(grade).is_integer():
                raise ValueError(grade)
            yield Judgment(query, document, int(float(grade)), path.name, number)
        except (ValueError, IndexError, OverflowError) as error:
            if number == 1 and cells[0].lower() in _QRELS_HEADING:
                continue
            raise BadData(f"{path.name}, line {number}: query-id, corpus-id and score are needed") from error


def _text_lines(path: Path, encoding: str | None) -> Iterator[str]:
    try:
        with open_text(path, encoding) as file:
            yield from file
    except (OSError, EOFError, UnicodeError, zstandard.ZstdError) as error:
        raise unreadable(f"{path.name} breaks off or is damaged", error) from error


def _checked(name: str, text: str, path: Path, number: int) -> tuple[str, str] | Reject:
    try:
        return check_text(name), check_text(text)
    except ValueError as error:
        return Reject(path.name, number, str(error))


def _strictly(path: Path, encoding: str | None) -> Iterator[Row]:
    for row in read_rows(path, encoding):
        if isinstance(row, Reject):
            raise BadData(f"{row.file}, line {row.line}: {row.reason}")
        yield row


def _names(row: Row, column: str) -> list[str]:
    found = row.values.get(column)
    if found is None:
        return []
    if not isinstance(found, list):
        raise BadData(f"{row.file}, line {row.line}: {column} is a list of ids, not {str(found)[:40]!r}")
    return [str(name) for name in found]


def _id(row: Row) -> str:
    found = id_of(row.values)
    if found is None:
        raise BadData(f"{row.file}, line {row.line}: there is no id")
    return found


def _corpus(folder: Path) -> list[Path]:
    """One file, or a folder of shards."""
    for name in _CORPUS:
        if found := _named(folder, name):
            return [found]
        if (folder / name).is_dir():
            return [path for path in sorted((folder / name).iterdir()) if _readable(path)]
    return []


def _queries(folder: Path, split: str) -> list[Path]:
    names = [f"{role}{joint}{split}" for role in ("queries", "topics") for joint in (".", "-", "_", "/")]
    found = next((path for name in [*names, "queries", "topics"] if (path := _named(folder, name))), None)
    return [found] if found else []


def _readable(path: Path) -> bool:
    bare = Path(path.stem) if path.suffix.lower() in (".gz", ".zst") else path
    return path.is_file() and bool(format_of(bare) or bare.suffix.lower() in _TEXT)


def _named(folder: Path, stem: str) -> Path | None:
    endings = [f".{name}" for name in ("jsonl", "tsv", "parquet", "csv", "json", "ndjson")] + list(_TEXT)
    return next(
        (
            path
            for ending in [*endings, ""]
            for packed in _ENDINGS
            if (path := folder / f"{stem}{ending}{packed}").is_file()
        ),
        None,
    )


def _stem(name: str) -> str:
    while Path(name).suffix.lower() in (".gz", ".zst", ".tsv", ".txt", ".jsonl", ".qrels"):
        name = Path(name).stem
    return name
