"""MaxSim: for each token of a query the similarity of the document's nearest token, summed.

Documents of as many tokens are scored together: nothing is padded, and the scores of all pairs of tokens are
never there at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch


@dataclass(frozen=True)
class Ragged:
    """Vectors [tokens of all texts, dim], text after text, and how many each has: counts [texts]."""

    vectors: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, texts: Sequence[np.ndarray]) -> "Ragged":
        """From each text's own [tokens, dim]."""
        return cls(np.concatenate(texts), np.array([len(text) for text in texts], np.int64))

    def __len__(self) -> int:
        return len(self.counts)

    @cached_property
    def starts(self) -> np.ndarray:
        """Of each text, in ``vectors``. [texts]"""
        return np.cumsum(self.counts) - self.counts

    def text(self, index: int) -> np.ndarray:
        """[tokens, dim]"""
        start = int(self.starts[index])
        return self.vectors[start : start + self.counts[index]]

    def span(self, texts: slice) -> "Ragged":
        """Some of the texts, one behind the other."""
        counts = self.counts[texts]
        start = int(self.counts[: texts.start].sum())
        return Ragged(self.vectors[start : start + int(counts.sum())], counts)

    @classmethod
    def joined(cls, parts: Sequence["Ragged"]) -> "Ragged":
        return cls(
            np.concatenate([part.vectors for part in parts]), np.concatenate([part.counts for part in parts])
        )

    def by_length(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """(numbers of the texts, vectors [texts, tokens, dim]) of all that have as many tokens."""
        starts = self.starts
        found = []
        for count in np.unique(self.counts).tolist():
            numbers = np.flatnonzero(self.counts == count)
            found.append((numbers, self.vectors[starts[numbers][:, None] + np.arange(count)]))
        return found


def score_all(
    queries: Ragged, documents: Ragged, *, device: str = "cpu", scores_at_once: int = 1 << 24
) -> torch.Tensor:
    """[queries, documents]. Of pairs of tokens ``scores_at_once`` are there at the same time."""
    scores = torch.zeros(len(queries), len(documents), device=device)
    asked = [
        (torch.from_numpy(numbers).to(device), torch.from_numpy(vectors.astype(np.float32)).to(device))
        for numbers, vectors in queries.by_length()
    ]
    for numbers, vectors in documents.by_length():
        columns = torch.from_numpy(numbers).to(device)
        tokens = vectors.shape[1]
        if not tokens:
            continue
        flat = (
            torch.from_numpy(vectors.astype(np.float32)).to(device).flatten(0, 1)
        )  # [documents * tokens, dim]
        for rows, of_queries in asked:
            together = max(1, scores_at_once // max(1, of_queries.shape[1] * len(flat)))
            for start in range(0, len(rows), together):
                block = of_queries[start : start + together]
                similar = block @ flat.T  # [queries, query tokens, documents * tokens]
                best = similar.unflatten(2, (len(columns), tokens)).amax(3).sum(1)
                scores[rows[start : start + together, None], columns] = best
    return scores


def score_pairs(queries: Ragged, documents: Ragged, pairs: np.ndarray) -> np.ndarray:
    """Of single pairs: pairs [pairs, 2] of a query and a document -> [pairs]."""
    found = np.zeros(len(pairs), np.float32)
    query_starts, document_starts = queries.starts, documents.starts
    for number, (query, document) in enumerate(pairs.tolist()):
        if documents.counts[document]:
            one = queries.vectors[query_starts[query] :][: queries.counts[query]].astype(np.float32)
            other = documents.vectors[document_starts[document] :][: documents.counts[document]]
            found[number] = (one @ other.astype(np.float32).T).max(1).sum()
    return found
