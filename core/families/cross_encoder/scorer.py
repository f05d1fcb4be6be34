"""Pairs of texts into scores, in micro-batches of similar length."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch

from core.evaluation.triplets import Score
from core.families.cross_encoder.pair_model import PairModel
from core.families.inference import check_finite
from core.training.batching import Packing, plan_micro_batches
from core.training.recovery import MicroBatch, in_halves

_CHUNK = 2048


def score_with(model: PairModel, packing: Packing, check_stop: Callable[[], None]) -> Score:
    """A scorer in the model's own length, through its own activation: most have a sigmoid.

    Raises `OutOfMemory` when not even one pair fits, and `NotFinite` for scores that cannot be compared.
    """

    def score(pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        # Longest first over all pairs, so that a chunk's micro-batches have hardly any padding.
        order = sorted(range(len(pairs)), key=lambda index: -sum(map(len, pairs[index])))
        found = np.empty(len(pairs), np.float32)
        was_training = model.training
        model.eval()
        try:
            for start in range(0, len(order), _CHUNK):
                chunk = order[start : start + _CHUNK]
                found[chunk] = _score_chunk(model, [pairs[index] for index in chunk], packing, check_stop)
        finally:
            model.train(was_training)
        check_finite(model, found, "scores")
        return found

    return score


def _score_chunk(
    model: PairModel, pairs: list[tuple[str, str]], packing: Packing, check_stop: Callable[[], None]
) -> np.ndarray:
    tokens = model.read_pairs([query for query, _ in pairs], [document for _, document in pairs])
    lengths = np.array([len(ids) for ids in tokens["input_ids"]])
    order = np.argsort(-lengths, kind="stable")
    found = np.empty(len(pairs), np.float32)
    for group in plan_micro_batches(lengths[order].tolist(), packing):
        check_stop()
        chosen = order[group]
        padded = model.tokenizer.pad(
            {name: [values[index] for index in chosen] for name, values in tokens.items()},
            return_tensors="pt",
        )
        on_device = {name: tensor.to(model.device) for name, tensor in padded.items()}
        pieces = in_halves(partial(_forward, model), on_device, "score a single pair")
        found[chosen] = np.concatenate(pieces)
    return found


def _forward(model: PairModel, micro_batch: MicroBatch) -> np.ndarray:
    """[pairs]"""
    with torch.inference_mode():
        return model.activation_fn(model(**micro_batch)).float().cpu().numpy()
