"""Retrieval sets: queries, a corpus, and which document answers which query.

BEIR folders (Thakur et al. 2021, arXiv 2104.08663), MS MARCO's and TREC's files, and BRIGHT's
(arXiv 2407.12883) are one thing here: files of documents, files of queries, and judgments.
"""

import re
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from core.data.io.folders import split_files
from core.data.io.lookup import Texts
from core.data.io.readers import format_of, read_rows
from core.data.retrieval_sets.judgments import Judging, OnMissing, RetrievalSet
from core.data.retrieval_sets.qrels import read_qrels, text_lines
from core.data.rows.columns import ID_NAMES, QUERY_NAMES, TEXT_NAMES
from core.data.rows.reading import ReadingReport
from core.data.rows.record import TrainingRow, document_text, id_of
from core.data.rows.remarks import Irregularity, first_judgments, first_texts
from core.data.rows.row import Judgment, Reject, Row, check_text
from core.errors import BadData

_CORPUS = ("corpus", "collection", "documents", "docs")
_ENDINGS = ("", ".gz", ".zst")
_TREC = (".trec", ".sgml", ".xml", ".topics")
_TEXT = (".txt", ".qrels", ".test", *_TREC)
_KEYS = {*ID_NAMES, "gold_ids", "gold_ids_long", "excluded_ids"}
"""Columns that are ids, or are read with the judgments."""

_HEADER = {name.lower() for name in (*ID_NAMES, *QUERY_NAMES, *TEXT_NAMES, "title", "url")}


@dataclass(frozen=True)
class JudgedFiles:
    """Where a retrieval set lies: one domain of it, for BRIGHT."""

    corpus: list[Path]
    queries: list[Path]
    qrels: Path | None
    domain: str = ""
    long: bool = False
    encoding: str | None = None
    report: ReadingReport | None = None  # grows by the columns that are not used

    def documents(self, rejects: list[Reject] | None = None) -> Iterator[tuple[str, str]]:
        """Every (id, text) of the corpus. What cannot be read goes to ``rejects``, or raises `BadData`."""
        for path in self.corpus:
            yield from read_texts(path, self.encoding, rejects, self.report)

    def questions(self, rejects: list[Reject] | None = None) -> Iterator[tuple[str, str]]:
        """Every (id, text) of the queries, in the same way."""
        for path in self.queries:
            yield from read_texts(path, self.encoding, rejects, self.report)

    def judgments(self) -> Iterator[Judgment]:
        """In the order of the file. Raises `BadData`."""
        if self.qrels is not None:
            yield from read_qrels(self.qrels, self.encoding)
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
    folder: Path,
    split: str | None,
    *,
    long: bool = False,
    encoding: str | None = None,
    report: ReadingReport | None = None,
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
            JudgedFiles(documents[domain], examples[domain], None, domain, long, encoding, report)
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
    return [JudgedFiles(corpus, queries, qrels, encoding=encoding, report=report)]


def files_by_split(folder: Path, encoding: str | None = None) -> dict[str, list[JudgedFiles]]:
    """The files of every split. BRIGHT has one split, ``test``, with a corpus for each domain."""
    if is_bright(folder):
        return {"test": judged_files(folder, None, encoding=encoding)}
    corpus = _corpus(folder)
    return {
        split: [JudgedFiles(corpus, _queries(folder, split), qrels, encoding=encoding)]
        for split, qrels in splits_of(folder).items()
    }


def read_judged(
    folder: Path,
    split: str | None,
    *,
    long: bool = False,
    on_missing: OnMissing = "fail",
    report: ReadingReport | None = None,
) -> RetrievalSet:
    """A split: its judged queries and the whole corpus. Several domains are one set, keyed domain/id.

    Raises `BadData` for unreadable lines, because a corpus with holes makes wrong scores, and as `Judging`
    does for judgments that name absent texts.
    """
    found = RetrievalSet()
    judging = Judging(found, folder.name, on_missing)
    parts = judged_files(folder, split, long=long, report=report)
    for files in parts:
        prefix = f"{files.domain}/" if len(parts) > 1 else ""
        for name, text in first_texts(files.documents(), "document", found.remarks):
            found.corpus[prefix + name] = text
        queries = {
            prefix + name: text for name, text in first_texts(files.questions(), "query", found.remarks)
        }
        for judgment in first_judgments(files.judgments(), found.remarks):
            judging.add(judgment.within(prefix), queries)
        excluded = {prefix + name: others for name, others in files.excluded().items()}
        for query in found.queries.keys() & queries.keys():
            if files.domain:
                found.categories[query] = files.domain
            if query in excluded:
                found.excluded[query] = {prefix + name for name in excluded[query]}
    judging.close()
    return found


def judged_pairs(
    folder: Path,
    split: str | None,
    *,
    long: bool = False,
    encoding: str | None = None,
    report: ReadingReport | None = None,
) -> Iterator[TrainingRow | Reject]:
    """A row for each relevant judgment, in the order of the judgments; a reject where a text is missing.

    Of ids and judgments that come twice the first counts, and ``report`` counts them. Memory: the ids of
    relevant documents, and the queries; documents lie on disk meanwhile.
    """
    report = report if report is not None else ReadingReport()
    remarks = report.remarks
    for files in judged_files(folder, split, long=long, encoding=encoding, report=report):
        judgments = first_judgments(files.judgments(), remarks)
        relevant = [judgment for judgment in judgments if judgment.grade > 0]
        asked = {judgment.query for judgment in relevant}
        rejects: list[Reject] = []
        queries = dict(first_texts(_only(asked, files.questions(rejects)), "query", remarks))
        conflicts = remarks.count(Irregularity.DOCUMENT_CONFLICT)
        with Texts() as documents:
            wanted = {judgment.document for judgment in relevant}
            documents.add(first_texts(_only(wanted, files.documents(rejects)), "document", remarks))
            yield from rejects
            repeated = remarks.count(Irregularity.DOCUMENT_CONFLICT) - conflicts
            report.counts["ids with several texts"] += repeated
            yield from joined(relevant, queries, documents, files.domain)


def joined(
    relevant: list[Judgment], queries: Mapping[str, str], documents: Texts, domain: str
) -> Iterator[TrainingRow | Reject]:
    """A row for each relevant judgment; a reject where a text is missing."""
    for judgment in relevant:
        query, texts = queries.get(judgment.query, ""), documents.of(judgment.document)
        if not query.strip() or not texts or not texts[0].strip():
            missing = f"document {judgment.document!r}" if query.strip() else f"query {judgment.query!r}"
            yield Reject(judgment.file, judgment.line, f"{missing} is not there, or empty")
        else:
            yield TrainingRow(
                query,
                texts[0],
                category=domain or None,
                query_id=judgment.query,
                positive_id=judgment.document,
            )


def _only(wanted: Container[str], texts: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    return ((name, text) for name, text in texts if name in wanted)


def read_texts(
    path: Path,
    encoding: str | None = None,
    rejects: list[Reject] | None = None,
    report: ReadingReport | None = None,
) -> Iterator[tuple[str, str]]:
    """Every (id, text) of a file of documents or queries: JSONL, Parquet, CSV with names; tab-separated
    (id, text) without; TREC's <DOC> and <top>.

    What cannot be read goes to ``rejects``; without it, raises `BadData`. ``report`` counts the columns that
    are not used.
    """
    for found in _texts(path, encoding, report if report is not None else ReadingReport()):
        if not isinstance(found, Reject):
            yield found
        elif rejects is None:
            raise BadData(str(found))
        else:
            rejects.append(found)


def _texts(path: Path, encoding: str | None, report: ReadingReport) -> Iterator[tuple[str, str] | Reject]:
    if path.suffix.lower() in _TREC:
        yield from _trec(path, encoding)
    elif format_of(path) == "tsv" or path.suffix.lower() in _TEXT:
        yield from _tabbed(path, encoding, report)
    else:
        for row in read_rows(path, encoding, report=report):
            if isinstance(row, Reject):
                yield row
                continue
            name = id_of(row.values)
            try:
                if name is None:
                    raise ValueError("there is no _id")
                key = next((key for key in QUERY_NAMES if isinstance(row.values.get(key), str)), None)
                text = row.values[key] if key is not None else document_text(row.values)
                used = {key} if key is not None else {"title", *TEXT_NAMES}
                report.unused.update(row.values.keys() - used - _KEYS)
                yield check_text(name), check_text(text)
            except ValueError as error:
                yield Reject(row.file, row.line, str(error))


def _tabbed(path: Path, encoding: str | None, report: ReadingReport) -> Iterator[tuple[str, str] | Reject]:
    for number, line in enumerate(text_lines(path, encoding), 1):
        cells = line.rstrip("\r\n").split("\t")
        if number == 1 and len(cells) > 1 and {cell.lower() for cell in cells} <= _HEADER:
            continue
        if not line.strip():
            continue
        if len(cells) < 2:
            yield Reject(path.name, number, "an id, a tab and a text are needed")
            continue
        if len(cells) == 4:  # MS MARCO's documents: id, url, title, body
            report.unused["column 2"] += 1
        parts = [part for part in (cells[2:] if len(cells) == 4 else cells[1:]) if part.strip()]
        yield _checked(cells[0], "\n".join(parts), path, number)


_TAGS = re.compile(r"<[^<>]*>")


def _trec(path: Path, encoding: str | None) -> Iterator[tuple[str, str] | Reject]:
    """<DOC> with <DOCNO>, <TITLE> and <TEXT>; <top> with <num> and <title>."""
    inside: list[str] = []
    for number, line in enumerate(text_lines(path, encoding), 1):
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


def _checked(name: str, text: str, path: Path, number: int) -> tuple[str, str] | Reject:
    try:
        return check_text(name), check_text(text)
    except ValueError as error:
        return Reject(path.name, number, str(error))


def _strictly(path: Path, encoding: str | None) -> Iterator[Row]:
    for row in read_rows(path, encoding):
        if isinstance(row, Reject):
            raise BadData(str(row))
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
