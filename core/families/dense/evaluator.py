"""Texts into embeddings, for evaluation."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch
from sentence_transformers import SentenceTransformer

from core.evaluation.retrieval import Encode
from core.run.heap import give_back_freed_memory
from core.spec.train import Prompts
from core.training.batching import Packing
from core.training.encoding import encode_micro_batches, make_micro_batches, tokenize
from core.training.recovery import MicroBatch, in_halves
from core.training.tokens import Frame, Ids

_CHUNK = 1024

_HELD_BYTES = 512 << 20
"""Of freed memory: without a limit a hundred thousand passages made it grow by 2 GB."""


Embed = Callable[[Sequence[Ids]], torch.Tensor]
"""Token ids of texts within their special tokens -> embeddings [texts, dim], as `Encode` gives them."""


def make_embed(model: SentenceTransformer, packing: Packing, check_stop: Callable[[], None]) -> Embed:
    """An encoder of texts that are tokens already.

    It asks ``check_stop`` between micro-batches: evaluating a large corpus must not outlast a stop request.
    Raises `OutOfMemory` when not even one text fits.
    """
    cosine = model.similarity_fn_name != "dot"
    frame = Frame.of(model.tokenizer)

    def embed(texts: Sequence[Ids]) -> torch.Tensor:
        micro_batches, positions = make_micro_batches(frame, texts, packing)
        pieces = []
        was_training = model.training
        model.eval()
        try:
            for micro_batch in micro_batches:
                check_stop()
                on_device = {name: tensor.to(model.device) for name, tensor in micro_batch.items()}
                pieces += in_halves(partial(_embed, model), on_device, "evaluate a single text")
                if model.device.type == "cpu":
                    give_back_freed_memory(above=_HELD_BYTES)
        finally:
            model.train(was_training)
        embeddings = torch.cat(pieces)[positions.to(model.device)]
        return torch.nn.functional.normalize(embeddings, dim=-1) if cosine else embeddings

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


def _embed(model: SentenceTransformer, micro_batch: MicroBatch) -> torch.Tensor:
    """[texts, dim]"""
    with torch.inference_mode():
        every = torch.arange(len(micro_batch["input_ids"]), device=model.device)
        return encode_micro_batches(model, [micro_batch], every).float()
