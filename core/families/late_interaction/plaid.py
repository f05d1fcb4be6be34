"""PLAID: an index of compressed vectors, for more documents than one wants to score (Santhanam et al. 2022,
arXiv 2205.09707; PyLate)."""

from pathlib import Path

import numpy as np

from core.families.late_interaction.maxsim import Ragged

_QUERIES = 256


class PlaidIndex:
    """Documents by number. It compresses their vectors: its scores are near, and not used."""

    def __init__(self, folder: Path, device: str, seed: int) -> None:
        from pylate.indexes import PLAID

        self._index = PLAID(
            index_folder=str(folder),
            index_name="corpus",
            override=True,
            seed=seed,
            device=device,
            show_progress=False,
        )

    def add(self, documents: Ragged, first: int) -> None:
        """Numbered from ``first`` on. Its centroids are those of the first call's."""
        filled = np.flatnonzero(documents.counts).tolist()
        if filled:
            self._index.add_documents(
                [str(first + index) for index in filled],
                [documents.text(index).astype(np.float32) for index in filled],
            )

    def ask(self, queries: Ragged, depth: int) -> np.ndarray:
        """[queries, depth] documents, -1 where there are no more."""
        found = np.full((len(queries), depth), -1, np.int64)
        for start in range(0, len(queries), _QUERIES):
            block = range(start, min(start + _QUERIES, len(queries)))
            answers = self._index([queries.text(query).astype(np.float32) for query in block], k=depth)
            for query, of_query in zip(block, answers, strict=True):
                found[query, : len(of_query)] = [int(answer["id"]) for answer in of_query]
        return found
