"""JSON files that nest their rows: SQuAD's paragraphs, and {queries, corpus, relevant_docs}."""

import json
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from core.artifacts import MANIFEST
from core.data.io.readers import format_of, open_text
from core.data.retrieval_sets.judgments import Judging, OnMissing, RetrievalSet
from core.data.rows.reading import Reading
from core.data.rows.record import TrainingRow
from core.data.rows.remarks import Irregularity
from core.data.rows.row import Judgment, Reject, Row, check_text
from core.errors import BadData

_HEAD = 4096
_RETRIEVAL = re.compile(r'\s*\{\s*"(queries|corpus|relevant_docs)"\s*:\s*\{')


def unnested(row: Row) -> Iterator[Row | Reject]:
    """The questions of one SQuAD article (Rajpurkar et al. 2016, arXiv 1606.05250), each with its paragraph.

    Questions that are marked as impossible have no paragraph that answers them: rejects.
    """
    paragraphs = row.values["paragraphs"]
    if not isinstance(paragraphs, list) or not all(isinstance(item, dict) for item in paragraphs):
        yield row
        return
    for paragraph in paragraphs:
        questions = paragraph.get("qas")
        if not isinstance(questions, list):
            yield Reject(row.file, row.line, "a paragraph has no qas")
            continue
        for question in questions:
            if not isinstance(question, dict) or question.get("is_impossible"):
                yield Reject(row.file, row.line, "a question is marked as impossible")
            else:
                values = {"question": question.get("question"), "context": paragraph.get("context")}
                rest = {
                    name: question[name] for name in question if name not in ("question", "is_impossible")
                }
                yield Row(row.file, row.line, {**values, **rest})


def is_retrieval_head(text: str) -> bool:
    """Whether a text begins as {queries, corpus, relevant_docs} does."""
    return bool(_RETRIEVAL.match(text))


def is_retrieval_json(path: Path) -> bool:
    """Whether a JSON file is one object of queries, a corpus and relevant documents, each by id."""
    if format_of(path) != "json" or not path.is_file():
        return False
    try:
        with open_text(path) as file:
            return is_retrieval_head(file.read(_HEAD))
    except (OSError, EOFError, UnicodeError):
        return False  # the reader of rows says what is wrong with it


def retrieval_json_in(folder: Path) -> Path | None:
    """The file of {queries, corpus, relevant_docs} that is all that a folder holds, as a sent one does."""
    if not folder.is_dir():
        return None
    shown = (path for path in folder.iterdir() if not path.name.startswith(".") and path.name != MANIFEST)
    files = list(islice(shown, 2))
    return files[0] if len(files) == 1 and is_retrieval_json(files[0]) else None


def read_retrieval_json(
    path: Path, encoding: str | None = None, *, on_missing: OnMissing = "fail"
) -> RetrievalSet:
    """The retrieval set of such a file, as LlamaIndex and sentence-transformers' evaluators write it.

    The file is held in memory whole. Raises `BadData`, also where a judged query or document is missing,
    unless these may be dropped.
    """
    try:
        with open_text(path, encoding) as file:
            values = json.load(file, object_pairs_hook=_without_repeats)
        queries, corpus, relevant = (dict(values[name]) for name in ("queries", "corpus", "relevant_docs"))
        found = RetrievalSet({}, {str(name): _text(text) for name, text in corpus.items()})
        texts = {str(name): _text(text) for name, text in queries.items()}
        judging = Judging(found, path.name, on_missing)
        for query, documents in relevant.items():
            for document, grade in _grades(query, documents).items():
                judging.add(Judgment(str(query), str(document), grade, path.name, 1), texts)
    except KeyError as error:
        raise BadData(f"{path.name} has no {error.args[0]}, beside the others of {_PARTS}") from error
    except (ValueError, TypeError, OSError, EOFError, RecursionError) as error:
        raise BadData(f"{path.name} is not one object of {_PARTS}: {error}") from error
    judging.close()
    return found


_PARTS = "queries, corpus and relevant_docs"


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose names are all different: of two texts with one id, one would be lost without a word."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} comes twice")
    return found


def _grades(query: object, documents: Any) -> dict[str, int]:
    """The grade of each document that is judged for a query. Raises `TypeError`."""
    if isinstance(documents, list):
        return dict.fromkeys(map(str, documents), 1)
    if not isinstance(documents, dict):
        raise TypeError(f"relevant_docs of query {query!r} must be a list of ids, or grades by id")
    for document, grade in documents.items():
        if isinstance(grade, bool) or not isinstance(grade, int | float) or grade != int(grade):
            raise TypeError(f"query {query!r} judges {document!r} with {grade!r}: grades are whole numbers")
    return {str(document): int(grade) for document, grade in documents.items()}


def _text(value: Any) -> str:
    if isinstance(value, dict) and "text" in value:
        value = "\n".join(part for part in (value.get("title"), value["text"]) if part)
    if not isinstance(value, str):
        raise TypeError(f"a text is needed, not {str(value)[:40]!r}")
    return check_text(value)


def retrieval_json_rows(path: Path, reading: Reading) -> Iterator[TrainingRow | Reject]:
    """A training row for each relevant document of such a file."""
    # Looked at only: what is missing is counted among the rows that cannot be used.
    on_missing: OnMissing = "drop" if reading.labels == "defer" else "fail"
    found = read_retrieval_json(path, reading.encoding, on_missing=on_missing)
    for kind, what in ((Irregularity.QUERY_MISSING, "query"), (Irregularity.DOCUMENT_MISSING, "document")):
        examples = found.remarks.examples(kind)
        for number in range(found.remarks.count(kind)):
            name = repr(examples[number]) if number < len(examples) else "(further ones)"
            yield Reject(path.name, 1, f"judges {what} {name}, which is not in the file")
    for role, name in (("query", "queries"), ("positive", "corpus"), ("label", "relevant_docs")):
        reading.report.used(role, name)
    for query, grades in found.qrels.items():
        for document, grade in grades.items():
            if grade > 0:
                text, positive = found.queries[query], found.corpus[document]
                if text.strip() and positive.strip():
                    yield TrainingRow(text, positive, query_id=query, positive_id=document)
                else:
                    yield Reject(path.name, 1, f"query {query!r} or document {document!r} is empty")


def write_judged_folder(path: Path, folder: Path, encoding: str | None) -> Path:
    """Such a file as a folder of BEIR's form, with the split ``test``. Raises `BadData`."""
    found = read_retrieval_json(path, encoding)
    (folder / "qrels").mkdir(parents=True)
    for name, texts in (("corpus", found.corpus), ("queries", found.queries)):
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps({"_id": key, "text": text}) + "\n" for key, text in texts.items())
    with (folder / "qrels" / "test.tsv").open("w", encoding="utf-8") as file:
        file.write("query-id\tcorpus-id\tscore\n")
        for query, grades in found.qrels.items():
            file.writelines(f"{query}\t{document}\t{grade}\n" for document, grade in grades.items())
    return folder
