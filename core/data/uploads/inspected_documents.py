"""Trees of documents that somebody sent: every document is read, and a sample of them is cut into passages.

Parsing Markdown takes most of the time: a few hundred documents tell the lengths of passages as well as a
hundred thousand.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from core.data.documents.passage import Passage
from core.data.documents.passages import AS_WRITTEN, files_by_ending, passages_of, read_documents
from core.data.rows.row import Reject
from core.data.rows.statistics import PREVIEW_ROWS
from core.data.uploads.inspected import Inspected
from core.spec.parts.queries import DEFAULT_WEIGHTS
from core.spec.prepare import Format

MOST_CUT = 500
"""Documents that are cut into passages, spread evenly over the tree."""

_MOST_CHARACTERS = 1 << 20
"""Of a longer document, only the beginning is cut."""

_CUT = replace(AS_WRITTEN, drafts=True)


def possible_queries(passage: Passage) -> float:
    """How many queries its own text gives, by the default weights, as far as one passage tells."""
    kinds = [draft.kind for draft in passage.drafts if not draft.refused]
    return sum(1.0 if kind == "given" else min(1.0, DEFAULT_WEIGHTS.get(kind, 0.0)) for kind in kinds)


def inspect_documents(
    path: Path, form: Format, check_stop: Callable[[], None], encoding: str | None = None
) -> Inspected:
    """Read every document of a tree or a file. Memory: one document.

    Document lengths and categories are those of all documents. Passage lengths are those of an even sample
    of `MOST_CUT` documents, and ``statistics.sampled`` says so; their possible queries stand for all.
    Raises `BadData`.
    """
    found = Inspected(form, {"documents": 0})
    found.show("documents", [])
    count, found.ignored = files_by_ending(path, form, check_stop)
    # Every Python file is parsed: one that is not Python is a reject.
    every = 1 if form == "python_source" else -(-count // MOST_CUT)
    statistics, cut = found.statistics, 0
    for document in read_documents(path, form, encoding=encoding, check_stop=check_stop):
        if isinstance(document, Reject):
            found.reject(document)
            continue
        number = found.splits["documents"]
        found.splits["documents"] += 1
        statistics.lengths["document"][len(document.text)] += 1
        if document.category is not None:
            statistics.categories[document.category] += 1
        is_sampled = number % every == 0
        cut += is_sampled
        if not is_sampled and len(found.preview["documents"]) >= PREVIEW_ROWS:
            continue
        whole = len(document.text) <= _MOST_CHARACTERS or form == "python_source"
        looked_at = document if whole else replace(document, text=document.text[:_MOST_CHARACTERS])
        for passage in passages_of(looked_at, _CUT):
            if isinstance(passage, Reject):
                found.reject(passage)
                found.splits["documents"] -= 1
                continue
            found.show("documents", [passage.shown()])
            if is_sampled:
                statistics.lengths["passage"][len(passage.text)] += 1
                statistics.queries += every * possible_queries(passage)
    found.empty = count - found.splits["documents"] - found.rejected
    if every > 1:
        statistics.sampled = {"documents": cut, "of": found.splits["documents"]}
    return found
