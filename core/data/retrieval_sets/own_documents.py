"""Queries whose id is that of a document: is it the same text, which must not find itself?

In ArguAna a query is a document of the corpus. BEIR's evaluation removes such documents from the rankings
(``ignore_identical_ids``), whatever the texts are; MTEB does so for the tasks that ask for it. Where queries
and documents are merely both numbered from 1 (Cranfield), that would remove unrelated documents. Hence
``auto``: the texts decide.
"""

import unicodedata
from collections.abc import Iterable

from core.data.retrieval_sets.judgments import Coincidence, IdenticalIds, RetrievalSet
from core.data.rows.remarks import Irregularity, Remarks

_SHINGLE = 5
"""Characters."""

_SAME = 0.5
"""Share of common shingles (Jaccard) from which two texts are the same one."""

_LONG = 20
"""Letters and digits of a query that do not stand in a document by chance."""

_MOST = 0.5
"""Share of the coinciding ids whose texts must be the same, so that ``auto`` excludes."""


def decide(
    pairs: Iterable[tuple[str, str, str]],
    relevant: Iterable[str],
    setting: IdenticalIds,
    remarks: Remarks,
) -> tuple[list[str], Coincidence]:
    """The ids of queries whose own document is left out of their ranking, and the counts behind that.

    ``pairs`` are (id, text of the query, text of the document) of coinciding ids whose document is not judged
    relevant; ``relevant`` are the coinciding ids whose document is. A relevant document always stays.
    """
    found = list(pairs)
    kept = list(relevant)
    same = sum(is_same_text(query, document) for _, query, document in found)
    leave_out = bool(found) and (setting == "exclude" or (setting == "auto" and same >= _MOST * len(found)))
    kind = Irregularity.OWN_DOCUMENT_EXCLUDED if leave_out else Irregularity.OWN_DOCUMENT_KEPT
    for name, _, _ in found:
        remarks.add(kind, name)
    for name in kept:
        remarks.add(Irregularity.OWN_DOCUMENT_RELEVANT, name)
    excluded = [name for name, _, _ in found] if leave_out else []
    return excluded, Coincidence(setting, len(found) + len(kept), len(kept), same, len(excluded))


def exclude_own_documents(found: RetrievalSet, setting: IdenticalIds) -> Coincidence:
    """Add queries' own documents to ``found.excluded``, as the setting asks."""
    own = [
        query
        for query in found.queries
        if query in found.corpus and query not in found.excluded.get(query, ())
    ]
    relevant = [query for query in own if found.qrels.get(query, {}).get(query, 0) > 0]
    others = [query for query in own if found.qrels.get(query, {}).get(query, 0) <= 0]
    pairs = ((query, found.queries[query], found.corpus[query]) for query in others)
    excluded, coincidence = decide(pairs, relevant, setting, found.remarks)
    for query in excluded:
        found.excluded.setdefault(query, set()).add(query)
    return coincidence


def note_excluded_relevant(found: RetrievalSet) -> None:
    """Remark on relevant documents that a ranking must leave out: no model can find them."""
    for query, names in found.excluded.items():
        for name in sorted(names):
            if found.qrels.get(query, {}).get(name, 0) > 0:
                found.remarks.add(Irregularity.RELEVANT_EXCLUDED, f"{query} {name}")


def is_same_text(query: str, document: str) -> bool:
    """Whether a document, its title or its body says what the query says, or contains all of it.

    A document's first line is its title. Case, punctuation and spaces do not count.
    """
    asked = _letters(query)
    whole = _letters(document)
    if not asked or not whole:
        return False
    if len(asked) >= _LONG and asked in whole:
        return True
    title, _, body = document.partition("\n")
    shingles = _shingles(asked)
    return any(
        len(shingles & other) >= _SAME * len(shingles | other)
        for other in map(_shingles, {whole, _letters(title), _letters(body)} - {""})
    )


def _letters(text: str) -> str:
    normalised = unicodedata.normalize("NFKC", text).casefold()
    return "".join(character for character in normalised if character.isalnum())


def _shingles(letters: str) -> set[str]:
    return {letters[start : start + _SHINGLE] for start in range(max(1, len(letters) - _SHINGLE + 1))}
