"""Pairs of texts into scores, in micro-batches of similar length."""

from collections.abc import Callable, Sequence

import numpy as np

from core.engine.batching import Packing, plan_micro_batches
from core.engine.inference import check_finite, pieces_of
from core.engine.micro_batches import MicroBatch
from core.families.cross_encoder.pair_model import PairModel, Tokens
from core.ranking.triplets import Score

_CHUNK = 2048


def score_with(model: PairModel, packing: Packing, check_stop: Callable[[], None]) -> Score:
    """A scorer in the model's own length, through its own activation: most have a sigmoid.

    Raises `OutOfMemory` when not even one pair fits, and `NotFinite` for scores that cannot be compared.
    """

    def score(pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        # Longest first over all pairs, so that a chunk's micro-batches have hardly any padding.
        order = sorted(range(len(pairs)), key=lambda index: -sum(map(len, pairs[index])))
        found = np.empty(len(pairs), np.float32)
        for start in range(0, len(order), _CHUNK):
            chunk = order[start : start + _CHUNK]
            found[chunk] = _score_chunk(model, [pairs[index] for index in chunk], packing, check_stop)
        check_finite(model, found, "scores")
        return found

    return score


def _score_chunk(
    model: PairModel, pairs: list[tuple[str, str]], packing: Packing, check_stop: Callable[[], None]
) -> np.ndarray:
    tokens = model.read_pairs([query for query, _ in pairs], [document for _, document in pairs])
    lengths = np.array([len(ids) for ids in tokens["input_ids"]])
    order = np.argsort(-lengths, kind="stable")
    groups = plan_micro_batches(lengths[order].tolist(), packing)
    micro_batches = (_pad(model, tokens, order[group]) for group in groups)
    found = np.empty(len(pairs), np.float32)
    pieces = pieces_of(model, micro_batches, _score, "score a single pair", check_stop)
    found[order] = np.concatenate(pieces)
    return found


def _pad(model: PairModel, tokens: Tokens, chosen: np.ndarray) -> MicroBatch:
    of_chosen = {name: [values[index] for index in chosen] for name, values in tokens.items()}
    return dict(model.tokenizer.pad(of_chosen, return_tensors="pt"))


def _score(model: PairModel, micro_batch: MicroBatch) -> np.ndarray:
    """[pairs]"""
    return model.activation_fn(model(**micro_batch)).float().cpu().numpy()
