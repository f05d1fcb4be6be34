"""Documents that a query's rankings leave out, and that are therefore no negatives of it.

BRIGHT and prepared sets name them (``excluded_ids``); where queries and documents share ids, a query's own
document is one (`core.data.retrieval_sets.own_documents`).
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from core.data.retrieval_sets.judged_folders import is_judged, judged_files
from core.data.retrieval_sets.judgments import IdenticalIds
from core.data.retrieval_sets.own_documents import decide
from core.data.rows.remarks import Remarks
from core.data.training_rows.dataset import read_parquet
from core.data.training_rows.page import read_page
from core.data.training_rows.pairs import TrainingRow, is_dataset
from core.mining.distinct_texts import Pool
from core.runtime.context import RunContext

_AT_ONCE = 4096


class LeftOut:
    """Collects ids while rows are read, and finds their documents when all of them are."""

    def __init__(self, source: Path, split: str | None) -> None:
        self._named = dict(_excluded_ids(source, split))
        # Id of a document -> (category, number) of queries: domains of BRIGHT may use an id each.
        self._excluded: dict[str, set[tuple[str | None, int]]] = defaultdict(set)
        self._queries: dict[str, int] = {}  # id of a query -> its number

    def note(self, row: TrainingRow, query: int) -> None:
        """A row, and the number of its query."""
        if row.query_id is None:
            return
        self._queries.setdefault(row.query_id, query)
        for name in self._named.get((row.category or "", row.query_id), ()):
            self._excluded[name].add((row.category, query))

    def documents_of(
        self, queries: Pool, documents: Pool, pairs: np.ndarray, setting: IdenticalIds, context: RunContext
    ) -> dict[int, set[int]]:
        """Of each query that leaves out any, the numbers of those documents. pairs [rows, 2]"""
        found: dict[int, set[int]] = defaultdict(set)
        own: dict[str, tuple[int, int]] = {}
        if not self._queries:
            return found
        categories = documents.labels("category")
        for start in range(0, len(documents), _AT_ONCE):
            context.check_stop()
            numbers = range(start, min(start + _AT_ONCE, len(documents)))
            for number, name in zip(numbers, documents.ids(list(numbers)), strict=True):
                for category, query in self._excluded.get(name, ()):
                    if categories[number] in (-1, documents.label_number("category", category)):
                        found[query].add(number)
                if name in self._queries:
                    own[name] = (self._queries[name], number)
        answers = {(int(query), int(document)) for query, document in pairs}
        names = [name for name, pair in own.items() if pair not in answers and pair[1] not in found[pair[0]]]
        asked = queries.texts([own[name][0] for name in names])
        said = documents.texts([own[name][1] for name in names])
        remarks = Remarks()
        relevant = [name for name, pair in own.items() if pair in answers]
        excluded, _ = decide(zip(names, asked, said, strict=True), relevant, setting, remarks)
        for name in excluded:
            query, number = own[name]
            found[query].add(number)
        for sentence, level in remarks.sentences():
            context.notice(sentence, level)
        return {query: numbers for query, numbers in found.items() if numbers}


def _excluded_ids(source: Path, split: str | None) -> Iterator[tuple[tuple[str, str], set[str]]]:
    """((category, id of a query), ids of documents), where a dataset names any."""
    if is_dataset(source):
        if read_page(source).type == "retrieval":
            for row in read_parquet(source / "queries.parquet"):
                if row["excluded_ids"]:
                    yield (row["category"] or "", row["id"]), set(row["excluded_ids"])
    elif is_judged(source):
        for files in judged_files(source, split):
            for query, names in files.excluded().items():
                yield (files.domain, query), names
