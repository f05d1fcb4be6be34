"""What a model is evaluated on: a retrieval set, from a BEIR folder or made of a file of pairs."""

from pathlib import Path

from core.data.beir import RetrievalSet, is_beir, read_beir
from core.data.pairs import read_pairs
from core.data.readers import Reject
from core.data.rejects import Rejects


def read_retrieval(path: Path, split: str | None = None, max_reject_share: float = 0.0) -> RetrievalSet:
    """The retrieval set at ``path``. For a BEIR folder the split is ``test`` unless said otherwise.

    Of a file of pairs, every distinct query is a query, and every distinct document, negatives included,
    belongs to the corpus; a query's positives are its relevant documents. Raises `BadData`, also when more
    than ``max_reject_share`` of the rows is unreadable: scores over a part of the set would be too good.
    """
    if is_beir(path):
        return read_beir(path, split or "test")
    found = RetrievalSet()
    documents: dict[str, str] = {}
    query_ids: dict[str, str] = {}
    rejects = Rejects()
    for row in read_pairs(path, split):
        if isinstance(row, Reject):
            rejects.add(row)
            continue
        rejects.kept += 1
        query_id = query_ids.setdefault(row.query, f"q{len(query_ids)}")
        for text in (row.positive, *row.negatives):
            documents.setdefault(text, f"d{len(documents)}")
        found.qrels.setdefault(query_id, {})[documents[row.positive]] = 1
    rejects.check(max_reject_share)
    found.rejects = rejects.count
    found.queries = {query_id: text for text, query_id in query_ids.items()}
    found.corpus = {document_id: text for text, document_id in documents.items()}
    return found
