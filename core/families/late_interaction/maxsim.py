"""MaxSim: for each token of a query the similarity of the document's nearest token, summed.

Khattab and Zaharia 2020 (arXiv 2004.12832). Texts have as many vectors as they have: no masks. Documents of
similar length are scored together in blocks of bounded size, so that the similarities of all pairs of tokens
[queries, documents, query tokens, document tokens] are never there at once; of each block its maxima and
where they were are kept, which is all that the gradient needs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

SCORES = 1 << 24
"""Similarities of tokens that are there at the same time: 64 MiB in float32."""


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


def maxsim(
    queries: torch.Tensor,
    query_counts: torch.Tensor,
    documents: torch.Tensor,
    document_counts: torch.Tensor,
    *,
    floored: torch.Tensor | None = None,
    scores_at_once: int = SCORES,
) -> torch.Tensor:
    """queries [tokens of all queries, dim], documents [tokens of all documents, dim], and how many vectors
    each text has, [queries] and [documents] -> scores [queries, documents].

    A document without vectors scores 0. In those that are ``floored`` [documents] a token of the query that
    resembles nothing counts 0, and not less. The gradient goes to the nearest token of each document, as that
    of ``max`` does. Counts and ``floored`` are on the CPU.
    """
    if floored is None:
        floored = torch.zeros(len(document_counts), dtype=torch.bool)
    if queries.is_cuda:
        fused = _fused(queries, query_counts, documents, document_counts, floored)
        if fused is not None:
            return fused
    return _MaxSim.apply(queries, query_counts, documents, document_counts, floored, scores_at_once)


def score_all(
    queries: Ragged, documents: Ragged, *, device: str = "cpu", scores_at_once: int = SCORES
) -> torch.Tensor:
    """[queries, documents]. Of pairs of tokens ``scores_at_once`` are there at the same time."""

    def on_device(vectors: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(vectors, np.float32)).to(device)

    with torch.no_grad():
        return maxsim(
            on_device(queries.vectors),
            torch.from_numpy(queries.counts),
            on_device(documents.vectors),
            torch.from_numpy(documents.counts),
            scores_at_once=scores_at_once,
        )


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


class _MaxSim(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        queries: torch.Tensor,
        query_counts: torch.Tensor,
        documents: torch.Tensor,
        document_counts: torch.Tensor,
        floored: torch.Tensor,
        scores_at_once: int,
    ) -> torch.Tensor:
        keep = queries.requires_grad or documents.requires_grad
        best = queries.new_zeros(len(queries), len(document_counts))  # [query tokens, documents]
        # Where it is -1, the score is a constant.
        nearest = torch.full(best.shape if keep else (0, 0), -1, dtype=torch.int32, device=best.device)
        for numbers, tokens in _blocks(document_counts, len(queries), scores_at_once):
            tokens = tokens.to(best.device)  # [documents of the block, longest], numbers of vectors
            columns = numbers.to(best.device)
            block = documents[tokens.flatten()].T  # [dim, documents * longest]
            rows = max(1, scores_at_once // tokens.numel())
            for start in range(0, len(queries), rows):
                some = slice(start, start + rows)
                similar = (queries[some] @ block).unflatten(1, tokens.shape)
                if not keep:
                    best[some, columns] = similar.amax(2)  # many times as fast as with the places
                else:
                    best[some, columns], places = similar.max(2)
                    found = tokens.expand(len(places), *tokens.shape).gather(2, places[:, :, None])
                    nearest[some, columns] = found[:, :, 0].int()
        if floored.any():
            below = (best < 0) & floored.to(best.device)
            best.masked_fill_(below, 0)
            if keep:
                nearest.masked_fill_(below, -1)
        owners = torch.repeat_interleave(query_counts).to(best.device)
        scores = best.new_zeros(len(query_counts), best.shape[1]).index_add_(0, owners, best)
        if keep:
            ctx.save_for_backward(queries, documents, nearest, owners)
        ctx.scores_at_once = scores_at_once
        return scores

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        queries, documents, nearest, owners = ctx.saved_tensors
        # [query tokens, documents]
        of_tokens = gradients[0][owners].masked_fill(nearest < 0, 0)
        nearest = nearest.clamp(min=0)
        of_queries = of_documents = None
        if ctx.needs_input_grad[0]:
            of_queries = torch.nn.functional.embedding_bag(
                nearest, documents, per_sample_weights=of_tokens.to(documents.dtype), mode="sum"
            )
        if ctx.needs_input_grad[2]:
            of_documents = torch.zeros_like(documents)
            columns = max(1, ctx.scores_at_once // queries.numel())
            for start in range(0, nearest.shape[1], columns):
                weights = of_tokens[:, start : start + columns]
                parts = queries[:, None] * weights[:, :, None]  # [query tokens, documents, dim]
                of_documents.index_add_(0, nearest[:, start : start + columns].flatten(), parts.flatten(0, 1))
        return of_queries, None, of_documents, None, None, None


def _blocks(
    counts: torch.Tensor, query_tokens: int, scores_at_once: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """(numbers [documents], their vectors' numbers [documents, longest]) of documents of similar length.

    Shorter ones have their first vector again: that changes no maximum.
    """
    starts = counts.cumsum(0) - counts
    order = torch.argsort(counts, stable=True)
    order = order[int((counts == 0).sum()) :]
    end = len(order)
    most = max(1, scores_at_once // max(1, min(query_tokens, 1024)))  # document tokens of a block
    while end:
        longest = int(counts[order[end - 1]])
        begin = max(0, end - max(1, most // longest))
        # What is much shorter waits: its padding would cost more than a block of its own.
        begin += int((counts[order[begin:end]] < 0.8 * longest).sum())
        numbers = order[begin:end]
        within = torch.arange(longest)[None]
        yield numbers, starts[numbers, None] + within * (within < counts[numbers, None])
        end = begin


def _fused(
    queries: torch.Tensor,
    query_counts: torch.Tensor,
    documents: torch.Tensor,
    document_counts: torch.Tensor,
    floored: torch.Tensor,
) -> torch.Tensor | None:
    """By the kernels of late-interaction-kernels, where they are installed and can."""
    try:
        from late_interaction_kernels.autograd import maxsim as fused
    except ImportError:
        return None
    dim = queries.shape[1]
    if dim % 8 or dim > 256 or not int(document_counts.min()) or not int(query_counts.min()):
        return None
    of_queries = list(queries.split(query_counts.tolist()))
    of_documents = list(documents.split(document_counts.tolist()))
    nothing = documents.new_zeros(1, dim)  # is as near to everything as a floor wants
    of_documents = [
        torch.cat([vectors, nothing]) if floor else vectors
        for vectors, floor in zip(of_documents, floored.tolist(), strict=True)
    ]
    padded = [
        torch.nn.utils.rnn.pad_sequence(texts, batch_first=True) for texts in (of_queries, of_documents)
    ]
    masks = [
        (torch.arange(found.shape[1]) < counts[:, None]).to(found.device)
        for found, counts in zip(padded, (query_counts, document_counts + floored), strict=True)
    ]
    # Of its two backward passes the one that sums in float32.
    return fused(*padded, q_mask=masks[0], d_mask=masks[1], backward="unified")
