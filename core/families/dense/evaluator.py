"""Texts into embeddings, for evaluation."""

from collections.abc import Callable
from typing import Literal

import torch
from sentence_transformers import SentenceTransformer

from core.evaluation.retrieval import Encode
from core.spec.train import Prompts
from core.training.batching import Packing
from core.training.encoding import encode_micro_batches, make_micro_batches, tokenize
from core.training.tokens import Frame

_CHUNK = 1024


def make_encode(
    model: SentenceTransformer,
    prompts: Prompts,
    packing: Packing,
    check_stop: Callable[[], None],
) -> Encode:
    """An encoder of texts in the model's own length, ready for a dot product.

    It asks ``check_stop`` between micro-batches: evaluating a large corpus must not outlast a stop request.
    """
    prefix = {"query": prompts.query or "", "document": prompts.document or ""}
    cosine = model.similarity_fn_name != "dot"
    frame = Frame.of(model.tokenizer)

    def encode(texts: list[str], role: Literal["query", "document"]) -> torch.Tensor:
        # Longest first over all texts, so that a chunk's micro-batches have hardly any padding.
        order = sorted(range(len(texts)), key=lambda index: -len(texts[index]))
        found: list[torch.Tensor] = []
        was_training = model.training
        model.eval()
        try:
            for start in range(0, len(order), _CHUNK):
                chunk = [prefix[role] + texts[index] for index in order[start : start + _CHUNK]]
                tokens = tokenize(model.tokenizer, chunk, model.max_seq_length)
                micro_batches, positions = make_micro_batches(frame, tokens, packing)
                pieces = []
                for micro_batch in micro_batches:
                    check_stop()
                    on_device = {name: tensor.to(model.device) for name, tensor in micro_batch.items()}
                    every = torch.arange(len(on_device["input_ids"]), device=model.device)
                    with torch.inference_mode():
                        pieces.append(encode_micro_batches(model, [on_device], every).float())
                found.append(torch.cat(pieces)[positions.to(model.device)])
        finally:
            model.train(was_training)
        embeddings = torch.cat(found)
        if cosine:
            embeddings = torch.nn.functional.normalize(embeddings, dim=-1)
        restore = torch.empty(len(order), dtype=torch.long)
        restore[torch.tensor(order)] = torch.arange(len(order))
        return embeddings[restore.to(embeddings.device)].clone()

    return encode
