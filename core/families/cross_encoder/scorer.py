"""Pairs of texts into scores, in micro-batches of similar length."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from sentence_transformers import CrossEncoder

from core.errors import OutOfMemory
from core.training.batching import Packing, plan_micro_batches
from core.training.recovery import MicroBatch, is_out_of_memory, split_micro_batches, tokens_of

Score = Callable[[Sequence[tuple[str, str]]], np.ndarray]
"""(query, document) pairs -> scores [pairs], through the model's own activation: most have a sigmoid."""

_CHUNK = 2048


def make_score(model: CrossEncoder, packing: Packing, check_stop: Callable[[], None]) -> Score:
    """A scorer in the model's own length. Raises `OutOfMemory` when not even one pair fits."""

    def score(pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        # Longest first over all pairs, so that a chunk's micro-batches have hardly any padding.
        order = sorted(range(len(pairs)), key=lambda index: -sum(map(len, pairs[index])))
        found = np.empty(len(pairs), np.float32)
        for start in range(0, len(order), _CHUNK):
            chunk = order[start : start + _CHUNK]
            found[chunk] = _score_chunk(model, [pairs[index] for index in chunk], packing, check_stop)
        return found

    return score


def _score_chunk(
    model: CrossEncoder, pairs: list[tuple[str, str]], packing: Packing, check_stop: Callable[[], None]
) -> np.ndarray:
    tokenizer = model.tokenizer
    tokens = tokenizer(
        [query for query, _ in pairs],
        [document for _, document in pairs],
        truncation=True,
        max_length=tokenizer.model_max_length,
        padding=False,
    )
    lengths = np.array([len(ids) for ids in tokens["input_ids"]])
    order = np.argsort(-lengths, kind="stable")
    found = np.empty(len(pairs), np.float32)
    for group in plan_micro_batches(lengths[order].tolist(), packing):
        check_stop()
        chosen = order[group]
        padded = tokenizer.pad(
            {name: [values[index] for index in chosen] for name, values in tokens.items()},
            return_tensors="pt",
        )
        found[chosen] = _forward(model, {name: tensor.to(model.device) for name, tensor in padded.items()})
    return found


def _forward(model: CrossEncoder, micro_batch: MicroBatch) -> np.ndarray:
    """[pairs]; in halves where memory does not suffice for the whole."""
    try:
        with torch.inference_mode():
            logits = model.model(**micro_batch).logits
            return model.activation_fn(logits).float().squeeze(-1).cpu().numpy()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        if len(micro_batch["input_ids"]) == 1:
            raise OutOfMemory(
                f"There is too little memory to score a single pair of {tokens_of(micro_batch)} tokens."
            ) from error
    # Outside of the except block: the exception holds what was computed.
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    halves = split_micro_batches([micro_batch], -(-tokens_of(micro_batch) // 2))
    return np.concatenate([_forward(model, half) for half in halves])
