"""PLAID: an index of compressed vectors, for more documents than one wants to score (Santhanam et al. 2022,
arXiv 2205.09707; PyLate)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from core.errors import BadSpec
from core.families.late_interaction.maxsim import Ragged
from core.stack import has_pylate, stack_name

INDEXED_AT_ONCE = 64
"""Shards whose vectors are in memory while an index takes them in; its centroids are those of the first."""

_QUERIES = 256
_NAME = "corpus"
_ORDER = "order.npy"


def check_plaid(asked: str) -> None:
    """Raises `BadSpec` where ``asked`` is plaid and the libraries for it are not installed."""
    if asked == "plaid" and not has_pylate():
        raise BadSpec(
            f"index: plaid needs PyLate, which this worker's libraries ({stack_name()}) are without: use "
            "index: exact, or the default stack"
        )


class PlaidIndex:
    """Documents by number. It compresses their vectors: its scores are near, and not used.

    What `close` leaves is PyLate's own: ``PLAID(index_folder=FOLDER, index_name="corpus")`` opens it.
    """

    def __init__(self, folder: Path, device: str, seed: int) -> None:
        from pylate.indexes import PLAID

        self._folder = folder
        self._added: list[int] = []
        self._index = PLAID(
            index_folder=str(folder),
            index_name=_NAME,
            override=True,
            seed=seed,
            device=device,
            show_progress=False,
        )

    def add(self, documents: Ragged, first: int, ids: Sequence[str] | None = None) -> None:
        """Numbered from ``first`` on; PyLate calls them by ``ids``, or by their numbers. The index's
        centroids are those of the first call's."""
        filled = np.flatnonzero(documents.counts).tolist()
        if filled:
            self._index.add_documents(
                [ids[index] if ids is not None else str(first + index) for index in filled],
                [documents.text(index).astype(np.float32) for index in filled],
            )
            self._added += [first + index for index in filled]

    def close(self) -> None:
        """Notes which document is which, so that `OpenPlaid` needs no pickles."""
        np.save(self._folder / _NAME / _ORDER, np.array(self._added, np.int64))

    def ask(self, queries: Ragged, depth: int) -> np.ndarray:
        """[queries, depth] documents, -1 where there are no more."""
        found = np.full((len(queries), depth), -1, np.int64)
        for start in range(0, len(queries), _QUERIES):
            block = range(start, min(start + _QUERIES, len(queries)))
            answers = self._index([queries.text(query).astype(np.float32) for query in block], k=depth)
            for query, of_query in zip(block, answers, strict=True):
                found[query, : len(of_query)] = [int(answer["id"]) for answer in of_query]
        return found


class OpenPlaid:
    """An index that `PlaidIndex` has closed. Its scores are those of compressed vectors."""

    def __init__(self, folder: Path, device: str) -> None:
        from fast_plaid.search import FastPlaid

        self._order = np.load(folder / _NAME / _ORDER)
        self._index: Any = FastPlaid(index=str(folder / _NAME / "fast_plaid_index"), device=device)

    def ask(self, queries: Ragged, depth: int) -> list[list[tuple[int, float]]]:
        """(document, score) for each query, best first."""
        asked = [torch.from_numpy(queries.text(query).astype(np.float32)) for query in range(len(queries))]
        found = self._index.search(queries_embeddings=asked, top_k=depth, show_progress=False)
        return [[(int(self._order[number]), float(score)) for number, score in some] for some in found]
