"""Texts into embeddings, for evaluation."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from core.engine.batching import Packing
from core.engine.encoding import make_micro_batches, sentence_embedding, tokenize
from core.engine.inference import check_finite, pieces_of
from core.engine.micro_batches import MicroBatch
from core.engine.tokens import Frame, Ids
from core.families.family import Rank, Use
from core.ranking.rank_set import Encode, rank_by_vectors
from core.ranking.triplets import Score
from core.runtime.context import RunContext
from core.spec.parts.models import Prompts

_CHUNK = 1024

Embed = Callable[[Sequence[Ids]], torch.Tensor]
"""Token ids of texts within their special tokens -> embeddings [texts, dim], as `Encode` gives them."""


def make_embed(model: SentenceTransformer, packing: Packing, check_stop: Callable[[], None]) -> Embed:
    """An encoder of texts that are tokens already.

    It asks ``check_stop`` between micro-batches: evaluating a large corpus must not outlast a stop request.
    Raises `OutOfMemory` when not even one text fits, and `NotFinite` for vectors that cannot be compared.
    """
    cosine = model.similarity_fn_name != "dot"
    frame = Frame.of(model.tokenizer)

    def embed(texts: Sequence[Ids]) -> torch.Tensor:
        batch = make_micro_batches(frame, texts, packing)
        pieces = pieces_of(model, batch.parts, _embed, "evaluate a single text", check_stop)
        embeddings = torch.cat(pieces)[batch.positions.to(pieces[0].device)]
        if cosine:
            embeddings = torch.nn.functional.normalize(embeddings, dim=-1)
        check_finite(model, embeddings, "vectors")
        return embeddings

    return embed


def make_encode(
    model: SentenceTransformer,
    prompts: Prompts,
    packing: Packing,
    check_stop: Callable[[], None],
) -> Encode:
    """An encoder of texts in the model's own length, ready for a dot product. Otherwise as `make_embed`."""
    prefix = {"query": prompts.query or "", "document": prompts.document or ""}
    embed = make_embed(model, packing, check_stop)

    def encode(texts: list[str], role: Literal["query", "document"]) -> torch.Tensor:
        # Longest first over all texts, so that a chunk's micro-batches have hardly any padding.
        order = sorted(range(len(texts)), key=lambda index: -len(texts[index]))
        found = []
        for start in range(0, len(order), _CHUNK):
            chunk = [prefix[role] + texts[index] for index in order[start : start + _CHUNK]]
            found.append(embed(tokenize(model.tokenizer, chunk, model.max_seq_length)))
        embeddings = torch.cat(found)
        restore = torch.empty(len(order), dtype=torch.long)
        restore[torch.tensor(order)] = torch.arange(len(order))
        return embeddings[restore.to(embeddings.device)].clone()

    return encode


def make_rank(model: SentenceTransformer, use: Use, packing: Packing, context: RunContext) -> Rank:
    return partial(rank_by_vectors, make_encode(model, use.prompts, packing, context.check_stop))


def make_score(model: SentenceTransformer, use: Use, packing: Packing, context: RunContext) -> Score:
    encode = make_encode(model, use.prompts, packing, context.check_stop)

    def score(pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        asked, place_of_query = _distinct([query for query, _ in pairs])
        known, place_of_document = _distinct([document for _, document in pairs])
        queries, documents = encode(asked, "query"), encode(known, "document")
        return (queries[place_of_query] * documents[place_of_document]).sum(1).cpu().numpy()

    return score


def _distinct(texts: Sequence[str]) -> tuple[list[str], list[int]]:
    """The different ones, and where each of all stands among them."""
    places: dict[str, int] = {}
    numbers = [places.setdefault(text, len(places)) for text in texts]
    return list(places), numbers


def _embed(model: SentenceTransformer, micro_batch: MicroBatch) -> torch.Tensor:
    """[texts, dim]"""
    return sentence_embedding(model, dict(micro_batch)).float()
