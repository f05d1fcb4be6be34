"""Faults that a test puts into the steps of a training: too little memory, and no numbers."""

import pytest
import torch
from transformers import BertModel

from core.engine import encoding


def small_memory(monkeypatch: pytest.MonkeyPatch, tokens: int) -> list[int]:
    """A device on which no micro-batch of more tokens fits. Returns what has gone through."""
    through: list[int] = []
    forward = BertModel.forward

    def limited(self, input_ids, *arguments, **options):
        count = input_ids.numel()
        if count > tokens:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {count} tokens")
        through.append(count)
        return forward(self, input_ids, *arguments, **options)

    monkeypatch.setattr(BertModel, "forward", limited)
    return through


def poison(monkeypatch: pytest.MonkeyPatch, steps: set[int], *, only_bf16: bool = False) -> None:
    """The embeddings of these batches are NaN."""
    forward = BertModel.forward
    calls = {"batch": 0}
    count = encoding.encode_micro_batches

    def counted(*arguments, **options):
        calls["batch"] += 1
        return count(*arguments, **options)

    def poisoned(self, *arguments, **options):
        found = forward(self, *arguments, **options)
        if calls["batch"] in steps and (not only_bf16 or torch.is_autocast_enabled("cpu")):
            for name in ("last_hidden_state", "pooler_output"):
                found[name] = found[name] * float("nan") if found[name] is not None else None
        return found

    monkeypatch.setattr("core.training.trainer.encode_micro_batches", counted)
    monkeypatch.setattr(BertModel, "forward", poisoned)
