"""JSON files that nest their rows: SQuAD's paragraphs, and {queries, corpus, relevant_docs}."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from core.data.judgments import Judging, OnMissing, RetrievalSet
from core.data.readers import format_of, open_text
from core.data.reading import Reading
from core.data.record import TrainingRow
from core.data.rows import Judgment, Reject, Row, check_text
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


def is_retrieval_json(path: Path) -> bool:
    """Whether a JSON file is one object of queries, a corpus and relevant documents, each by id."""
    if format_of(path) != "json" or not path.is_file():
        return False
    try:
        with open_text(path) as file:
            return bool(_RETRIEVAL.match(file.read(_HEAD)))
    except (OSError, EOFError, UnicodeError):
        return False  # the reader of rows says what is wrong with it


def read_retrieval_json(
    path: Path, encoding: str | None = None, *, on_missing: OnMissing = "fail"
) -> RetrievalSet:
    """The retrieval set of such a file, as LlamaIndex and sentence-transformers' evaluators write it.

    The file is held in memory whole. Raises `BadData`, also where a judged query or document is missing,
    unless these may be dropped.
    """
    try:
        with open_text(path, encoding) as file:
            values = json.load(file)
        queries, corpus, relevant = (dict(values[name]) for name in ("queries", "corpus", "relevant_docs"))
        found = RetrievalSet({}, {str(name): _text(text) for name, text in corpus.items()})
        texts = {str(name): _text(text) for name, text in queries.items()}
        judging = Judging(found, path.name, on_missing)
        for query, documents in relevant.items():
            grades = documents if isinstance(documents, dict) else dict.fromkeys(documents, 1)
            for document, grade in grades.items():
                judging.add(Judgment(str(query), str(document), int(grade), path.name, 1), texts)
    except (ValueError, TypeError, KeyError, OSError, EOFError, RecursionError) as error:
        raise BadData(
            f"{path.name} is not one object of queries, corpus and relevant_docs: {error!r}"
        ) from error
    judging.close()
    return found


def _text(value: Any) -> str:
    if isinstance(value, dict) and "text" in value:
        value = "\n".join(part for part in (value.get("title"), value["text"]) if part)
    if not isinstance(value, str):
        raise TypeError(f"a text is needed, not {str(value)[:40]!r}")
    return check_text(value)


def retrieval_json_rows(path: Path, reading: Reading) -> Iterator[TrainingRow | Reject]:
    """A training row for each relevant document of such a file."""
    found = read_retrieval_json(path, reading.encoding)
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
