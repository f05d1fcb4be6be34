"""Retrieval sets as prepared datasets: of judged sets as they are, and of rows whose positives become a
corpus."""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa

from core.data.io.table_files import ParquetFile, read_batches
from core.data.prepared.read_sources import Gathered, Opened
from core.data.retrieval_sets.judged_folders import JudgedFiles, is_bright, judged_files, splits_of
from core.data.rows.hashing import text_hash
from core.data.rows.remarks import Remarks, first_judgments, first_texts
from core.data.training_rows.dataset import QRELS, TEXTS
from core.data.training_rows.page import DatasetPage
from core.data.training_rows.pairs import is_dataset
from core.errors import BadData, BadSpec
from core.runtime.context import RunContext
from core.spec.prepare import PrepareSpec


class RetrievalFiles:
    """The files of a retrieval set that is being written."""

    def __init__(self, out: Path) -> None:
        self._out, self._stack = out, ExitStack()
        self.corpus = self._stack.enter_context(ParquetFile(out / "corpus.parquet", TEXTS))
        self.queries = self._stack.enter_context(ParquetFile(out / "queries.parquet", TEXTS))
        self._qrels: dict[str, ParquetFile] = {}

    def judge(self, split: str, query: str, document: str, grade: int = 1) -> None:
        if split not in self._qrels:
            path = self._out / "qrels" / f"{split}.parquet"
            self._qrels[split] = self._stack.enter_context(ParquetFile(path, QRELS))
        self._qrels[split].add({"query_id": query, "document_id": document, "grade": grade})

    def close(self) -> DatasetPage:
        """How much of everything there is."""
        self._stack.close()
        return DatasetPage(
            type="retrieval",
            splits={split: file.rows for split, file in self._qrels.items()},
            documents=self.corpus.rows,
            queries=self.queries.rows,
        )


def write_retrieval(
    gathered: Gathered,
    splits: np.ndarray,
    names: list[str],
    out: Path,
    each: Callable[[pa.Table, slice], None],
) -> DatasetPage:
    """Rows' queries, judgments by split, and everything that can be found: positives, negatives, passages.

    ``splits`` [rows] are indexes into ``names``, -1 for rows that are left out. Passages keep their names,
    other texts are named by their content. ``each`` is told of every batch of rows.
    """
    files = RetrievalFiles(out)
    corpus: dict[int, str | None] = {}
    queries: set[int] = set()
    judged: set[int] = set()

    def document(text: str, name: str | None, category: str | None) -> str:
        mark = text_hash(text)
        identifier = corpus.get(mark, name) or f"d{mark:016x}"
        if mark not in corpus:
            corpus[mark] = name
            files.corpus.add({"id": identifier, "text": text, "category": category, "excluded_ids": None})
        return identifier

    for batch in read_batches(gathered.passages_path):
        for row in batch.select(["id", "text", "category"]).to_pylist():
            document(row["text"], row["id"], row["category"])
    begin = 0
    for batch in read_batches(gathered.rows):
        rows = slice(begin, begin + batch.num_rows)
        begin = rows.stop
        each(pa.Table.from_batches([batch]), rows)
        for row, split in zip(batch.to_pylist(), splits[rows].tolist(), strict=True):
            if split < 0:
                continue
            relevant = document(row["positive"], None, row["category"])
            for text in row["negatives"] or []:
                document(text, None, None)
            asked = text_hash(row["query"])
            query = f"q{asked:016x}"
            if asked not in queries:
                queries.add(asked)
                line = {"id": query, "text": row["query"], "category": row["category"], "excluded_ids": None}
                files.queries.add(line)
            mark = text_hash(f"{query}\0{relevant}")
            if mark not in judged:
                judged.add(mark)
                files.judge(names[split], query, relevant)
    return files.close()


def write_judged(spec: PrepareSpec, context: RunContext, sources: list[Opened], out: Path) -> DatasetPage:
    """Judged sets with their ids, grades and splits. Several sources, or domains, are keyed SOURCE/ID.

    Of ids and judgments that come twice the first counts; notices and the page's ``remarks`` tell of them.
    Raises `BadData` for judgments that name what is not there, and `BadSpec` when other splits are asked for.
    """
    if spec.split.dev or spec.split.test:
        raise BadSpec("split: a judged set keeps the splits it has")
    files = RetrievalFiles(out)
    remarks = Remarks()
    for index, opened in enumerate(sources):
        if is_dataset(opened.path):
            raise BadSpec(f"{opened.source.ref} is a prepared retrieval set already")
        for domain, parts in _parts(opened).items():
            prefix = "/".join(
                [*([str(index)] if len(sources) > 1 else []), *([domain] if domain else []), ""]
            )
            _write_part(files, parts, prefix, domain or opened.source.category, context, remarks)
    page = files.close()
    for sentence, level in remarks.sentences():
        context.notice(sentence, level)
    if found := remarks.as_dict():
        page.remarks = found
    rows = sum(page.splits.values())
    if not rows:
        raise BadData("nothing is judged: the qrels are empty")
    page.rows = page.read = page.kept = rows
    return page


def _parts(opened: Opened) -> dict[str, dict[str, JudgedFiles]]:
    """By domain (of BRIGHT; else "") what is judged, by split."""
    asked, encoding = opened.source.split, opened.source.encoding
    if is_bright(opened.path):
        found = judged_files(
            opened.path, asked, long=opened.source.format == "bright_long", encoding=encoding
        )
        return {files.domain if len(found) > 1 else "": {"test": files} for files in found}
    names = [asked] if asked else list(splits_of(opened.path))
    return {
        "": {name: files for name in names for files in judged_files(opened.path, name, encoding=encoding)}
    }


def _write_part(
    files: RetrievalFiles,
    parts: dict[str, JudgedFiles],
    prefix: str,
    category: str | None,
    context: RunContext,
    remarks: Remarks,
) -> None:
    """A corpus, and what is judged of it."""
    first = next(iter(parts.values()))
    corpus = first_texts(first.documents(), "document", remarks)
    documents = _copy(files.corpus, corpus, prefix, category, {}, context)
    known: set[str] = set()
    for split, part in parts.items():
        asked: set[str] = set()
        for judgment in first_judgments(part.judgments(), remarks):
            if judgment.document not in documents:
                raise BadData(
                    f"{judgment.file}, line {judgment.line}: there is no document {judgment.document!r} "
                    "(evaluate the folder as it is, with on_missing: drop, or remove the judgment)"
                )
            asked.add(judgment.query)
            files.judge(split, prefix + judgment.query, prefix + judgment.document, judgment.grade)
        new = asked - known
        asked_now = ((name, text) for name, text in part.questions() if name in new)
        texts = first_texts(asked_now, "query", remarks)
        found = _copy(files.queries, texts, prefix, category or part.domain or None, part.excluded(), context)
        if missing := new - found:
            raise BadData(
                f"query {min(missing)!r} is judged, and is not there (evaluate the folder as it is, with "
                "on_missing: drop, or remove its judgments)"
            )
        known |= new


def _copy(
    file: ParquetFile,
    texts: Iterable[tuple[str, str]],
    prefix: str,
    category: str | None,
    excluded: dict[str, set[str]],
    context: RunContext,
) -> set[str]:
    """Write texts under their ids. Returns the ids."""
    found: set[str] = set()
    for number, (name, text) in enumerate(texts):
        if number % 4096 == 0:
            context.check_stop()
        found.add(name)
        left_out = [prefix + other for other in sorted(excluded.get(name, ()))] or None
        file.add({"id": prefix + name, "text": text, "category": category, "excluded_ids": left_out})
    return found
