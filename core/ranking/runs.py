"""TREC run files: query, Q0, document, rank, score, tag."""

import math
import re
from pathlib import Path
from urllib.parse import quote, unquote

from core.data.retrieval_sets.judgments import OnMissing, RetrievalSet
from core.data.retrieval_sets.qrels import text_lines
from core.data.rows.remarks import Irregularity
from core.errors import BadData
from core.ranking.metrics import Run, in_order

_SPACE = re.compile(r"\s")


def write_run(path: Path, run: Run, tag: str) -> None:
    """Best first, equal scores in trec_eval's order. White space in ids, which the format cannot hold, is
    percent-encoded."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for query, documents in run.items():
            for rank, document in enumerate(in_order(documents), 1):
                file.write(
                    f"{_one_word(query)} Q0 {_one_word(document)} {rank} {documents[document]:.9g} "
                    f"{_one_word(tag)}\n"
                )


def read_run(path: Path, dataset: RetrievalSet, on_missing: OnMissing = "fail") -> Run:
    """The rankings of a dataset's queries, without the documents that those must leave out.

    The order is that of the scores, as trec_eval has it; the ranks in the file do not count. Queries that are
    not in the dataset are left out, and queries of the dataset without a ranking count as 0: both are added
    to the dataset's remarks, and so are documents that are dropped.

    Raises `BadData` for a line that is none, for a score that is not a finite number, for a document that a
    query has twice, where no query has a ranking, and for documents that are not in the corpus unless
    ``on_missing`` is ``drop``.
    """
    run: Run = {}
    foreign: set[str] = set()
    missing: list[tuple[int, str]] = []
    for number, line in enumerate(text_lines(path, None), 1):
        cells = line.split()
        if not cells:
            continue
        where = f"{path.name}, line {number}"
        try:
            query, _, document, _, text, *_ = cells
            score = float(text)
        except ValueError as error:
            raise BadData(f"{where}: query, Q0, document, rank, score and tag are needed") from error
        if not math.isfinite(score):
            raise BadData(f"{where}: the score {text!r} is not a finite number, so it has no rank")
        query = query if query in dataset.queries else unquote(query)
        if query not in dataset.queries:
            foreign.add(query)
            continue
        document = document if document in dataset.corpus else unquote(document)
        if document not in dataset.corpus:
            missing.append((number, document))
            continue
        if document in run.get(query, ()):
            raise BadData(f"{where}: query {query!r} has document {document!r} twice")
        if document not in dataset.excluded.get(query, ()):
            run.setdefault(query, {})[document] = score
    if missing and on_missing == "fail":
        number, document = missing[0]
        raise BadData(
            f"{path.name}, line {number}: the corpus has no document {document!r}; {len(missing):,} lines "
            "rank documents that are not in it (datasets: on_missing: drop leaves them out and counts them)"
        )
    if not run:
        raise BadData(f"{path.name} ranks no document for any query of the dataset")
    _add_remarks(dataset, run, foreign, [document for _, document in missing])
    return run


def _add_remarks(dataset: RetrievalSet, run: Run, foreign: set[str], missing: list[str]) -> None:
    for document in missing:
        dataset.remarks.add(Irregularity.RUN_DOCUMENT_MISSING, document)
    for query in sorted(foreign):
        dataset.remarks.add(Irregularity.RUN_QUERY_UNKNOWN, query)
    for query in dataset.queries:
        if query not in run:
            dataset.remarks.add(Irregularity.RUN_QUERY_MISSING, query)


def _one_word(text: str) -> str:
    return _SPACE.sub(lambda found: quote(found[0]), text) or "-"
