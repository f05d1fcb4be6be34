"""TREC run files: query, Q0, document, rank, score, tag."""

import re
from pathlib import Path
from urllib.parse import quote, unquote

from core.data.judged import RetrievalSet
from core.data.readers import open_text
from core.errors import BadData
from core.evaluation.metrics import Run

_SPACE = re.compile(r"\s")


def write_run(path: Path, run: Run, tag: str) -> None:
    """Best first. White space in ids, which the format cannot hold, is percent-encoded."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for query, documents in run.items():
            ranked = sorted(documents.items(), key=lambda item: -item[1])
            for rank, (document, score) in enumerate(ranked, 1):
                file.write(
                    f"{_one_word(query)} Q0 {_one_word(document)} {rank} {score:.9g} {_one_word(tag)}\n"
                )


def read_run(path: Path, dataset: RetrievalSet) -> Run:
    """The rankings of a dataset's queries, without documents that those must leave out; others' are passed
    over. Raises `BadData` for a line that is none, for documents that the corpus has not, and where no query
    has a ranking."""
    run: Run = {}
    with open_text(path, None) as file:
        for number, line in enumerate(file, 1):
            cells = line.split()
            if not cells:
                continue
            try:
                query, _, document, _, score, *_ = cells
                value = float(score)
            except ValueError as error:
                raise BadData(
                    f"{path.name}, line {number}: query, Q0, document, rank, score and tag are needed"
                ) from error
            query = query if query in dataset.queries else unquote(query)
            if query not in dataset.queries:
                continue
            document = document if document in dataset.corpus else unquote(document)
            if document not in dataset.corpus:
                raise BadData(f"{path.name}, line {number}: the corpus has no document {document!r}")
            if document not in dataset.excluded.get(query, ()):
                run.setdefault(query, {})[document] = value
    if not run:
        raise BadData(f"{path.name} ranks no document for any query of the dataset")
    return run


def _one_word(text: str) -> str:
    return _SPACE.sub(lambda found: quote(found[0]), text) or "-"
