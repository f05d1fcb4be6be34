"""Documents that are known to answer a query, and so are never its negatives."""

from collections import defaultdict
from collections.abc import Callable

import numpy as np

from core.data.dedup.alike import Alike
from core.mining.read_input import Gathered
from core.spec.parts.filters import Filters


class Answers:
    """Of each query the documents that answer it, nearly repeat one that does, or share its group, and those
    that its rankings leave out.

    Groups are looked up and not listed query by query: one may hold half of the corpus. ``alike`` is of the
    documents.
    """

    def __init__(
        self, filters: Filters, gathered: Gathered, alike: Alike, check_stop: Callable[[], None]
    ) -> None:
        check_stop()
        count = len(gathered.queries)
        members = gathered.documents.groups() if not filters.same_group else np.empty((0, 2), np.int64)
        groups_of = defaultdict(list)
        for document, group in members.tolist():
            groups_of[document].append(group)
        texts: list[set[int]] = [set() for _ in range(count)]
        groups: list[set[int]] = [set() for _ in range(count)]
        for (query, positive), own in zip(gathered.pairs.tolist(), gathered.groups.tolist(), strict=True):
            texts[query] |= alike.of(positive)
            # A row that says its group means that one: its text may stand on other pages, too.
            groups[query].update([own] if own >= 0 else groups_of[positive])
        for query, excluded in gathered.excluded.items():
            texts[query] |= excluded
        # What answers a query answers those that ask the same, or nearly.
        asking = Alike(gathered.queries)
        same = [asking.of(query) for query in range(count)]
        self._texts = [set().union(*(texts[other] for other in others)) for others in same]
        self._groups = [set().union(*(groups[other] for other in others)) for others in same]
        by_group = members[np.lexsort((members[:, 0], members[:, 1]))]
        numbers, starts = np.unique(by_group[:, 1], return_index=True)
        self._members = dict(zip(numbers.tolist(), np.split(by_group[:, 0], starts[1:]), strict=False))

    def among(self, query: int, documents: np.ndarray) -> np.ndarray:
        """Which of these documents are no negatives of the query. [documents] -> [documents]"""
        texts = self._texts[query]
        found = np.isin(documents, np.fromiter(texts, np.int64, len(texts)))
        for group in self._groups[query]:
            members = self._members.get(group, documents[:0])
            if len(members):
                place = np.minimum(np.searchsorted(members, documents), len(members) - 1)
                found |= members[place] == documents
        return found

    @property
    def most(self) -> int:
        """Largest number of answers of any query."""
        sizes = {group: len(members) for group, members in self._members.items()}
        return max(
            (
                len(texts) + sum(sizes.get(group, 0) for group in groups)
                for texts, groups in zip(self._texts, self._groups, strict=True)
            ),
            default=0,
        )
