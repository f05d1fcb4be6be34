"""Documents that lose tokens before the model reads them.

The rows' tokens are written once more, with the documents' shorter: whatever comes after, from the choice of
lengths to the last batch, sees nothing else, and computes so much less. How much a token matters is either
how much attention the base model pays to it, or how rare it is in the rows' documents (inverse document
frequency); a text's first tokens, and chance, need no such measure.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from core.artifacts.cache import key_of
from core.engine.batching import Packing
from core.engine.encoding import make_micro_batches
from core.engine.micro_batches import in_evaluation_mode, move_micro_batch
from core.engine.models.loading import transformer_of
from core.engine.token_table import TokenTable, token_cache, write_tokens
from core.engine.tokens import Frame
from core.models.memory import PACKING_TOKENS
from core.spec.parts.training import PruneTokens

_TEXTS = 1024


@dataclass(frozen=True)
class Pruned:
    """Where the tokens lie, and how many the documents had and have."""

    folder: Path
    before: int
    after: int


def prune_documents(
    table: TokenTable,
    asked: PruneTokens,
    model: Any,
    identity: str,
    cache: Path,
    check_stop: Callable[[], None],
) -> Pruned:
    """The table with shorter documents. ``identity`` stands for the table's content and the model's weights;
    what was made for the same before is used again."""
    key = key_of({"of": identity, "pruned": asked.model_dump()})

    def fill(folder: Path) -> None:
        _, documents, _ = table.numbers()
        known = np.unique(documents)
        write_tokens(table, known, _choose(table, known, asked, model, check_stop), folder)

    tables = token_cache(cache)
    final = tables.find(key) or tables.make(key, fill)
    before, after = (found.counts()["document"].sum() for found in (table, TokenTable(final)))
    return Pruned(final, int(before), int(after))


def _choose(
    table: TokenTable,
    known: np.ndarray,
    asked: PruneTokens,
    model: Any,
    check_stop: Callable[[], None],
) -> list[np.ndarray]:
    """Of every document the places of the tokens that stay, in their order."""
    texts = table.texts(known)
    match asked.strategy:
        case "length":
            return [np.arange(_left(len(text), asked)) for text in texts]
        case "random":
            keys = table.keys_of(known)
            # By the text itself: the same whatever rows it stands in.
            return [
                np.sort(
                    np.random.default_rng((asked.seed, int(key))).permutation(len(text))[
                        : _left(len(text), asked)
                    ]
                )
                for key, text in zip(keys, texts, strict=True)
            ]
        case "threshold":
            return _above_threshold(texts, _rarity(texts), asked)
        case "attention":
            scores = _attention(table, known, model, check_stop)
        case _:
            rarity = _rarity(texts)
            attention = _attention(table, known, model, check_stop)
            scores = [_ranks(one) + _ranks(other) for one, other in zip(attention, rarity, strict=True)]
    return [np.sort(np.argsort(-of_text, kind="stable")[: _left(len(of_text), asked)]) for of_text in scores]


def _left(count: int, asked: PruneTokens) -> int:
    return min(count, max(asked.min_tokens, round(asked.keep_ratio * count)))


def _ranks(scores: np.ndarray) -> np.ndarray:
    """From 0 for the least to 1 for the most."""
    ranks = np.empty(len(scores))
    ranks[np.argsort(scores, kind="stable")] = np.arange(len(scores))
    return ranks / max(1, len(scores) - 1)


def _rarity(texts: list[np.ndarray]) -> list[np.ndarray]:
    """Inverse document frequency of every token: ln(documents / documents that have it)."""
    size = max((int(text.max(initial=0)) for text in texts), default=0) + 1
    have = np.zeros(size)
    for text in texts:
        have[np.unique(text)] += 1
    rarity = np.log(len(texts) / np.maximum(have, 1))
    return [rarity[text] for text in texts]


def _above_threshold(
    texts: list[np.ndarray], scores: list[np.ndarray], asked: PruneTokens
) -> list[np.ndarray]:
    """One bar for all texts, so that ``keep_ratio`` of all tokens is above it; short texts stay whole."""
    every = np.sort(np.concatenate([*scores, np.empty(0)]))
    if not len(every):
        return [np.arange(0) for _ in texts]
    bar = every[min(len(every) - 1, round((1 - asked.keep_ratio) * len(every)))]
    kept = []
    for of_text in scores:
        least = min(asked.min_tokens, len(of_text))
        enough = np.flatnonzero(of_text >= bar)
        if len(enough) < least:
            enough = np.sort(np.argsort(-of_text, kind="stable")[:least])
        kept.append(enough)
    return kept


def _attention(
    table: TokenTable, known: np.ndarray, model: Any, check_stop: Callable[[], None]
) -> list[np.ndarray]:
    """How much the last layer's heads attend to each token, averaged over heads and over who attends."""
    transformer = transformer_of(model)
    frame = Frame.of(model.tokenizer)
    limit = int(getattr(transformer.config, "max_position_embeddings", 0) or 512)
    device = next(transformer.parameters()).device
    packing = Packing(PACKING_TOKENS[device.type])
    found: list[np.ndarray] = []
    with in_evaluation_mode(transformer), _telling_attention(transformer):
        for start in range(0, len(known), _TEXTS):
            texts = table.texts(known[start : start + _TEXTS])
            batch = make_micro_batches(frame, [frame.put(text, limit) for text in texts], packing)
            rows: list[np.ndarray] = []
            for micro_batch in batch.parts:
                check_stop()
                on_device = move_micro_batch(micro_batch, device)
                with torch.inference_mode():
                    last = transformer(**on_device, output_attentions=True).attentions[-1]
                mask = on_device["attention_mask"].float()  # [texts, tokens]
                received = (last.float().mean(1) * mask[:, :, None]).sum(1)  # [texts, tokens]
                lengths = mask.sum(1).int().tolist()
                for row, length in zip(received.cpu().numpy(), lengths, strict=True):
                    whole = row[-length:] if frame.pads_left else row[:length]
                    rows.append(whole[len(frame.prefix) : length - len(frame.suffix)])
            for place, text in zip(batch.positions.tolist(), texts, strict=True):
                # Beyond the model's context nothing is known of a token: it goes first.
                found.append(np.pad(rows[place], (0, len(text) - len(rows[place]))))
    return found


@contextlib.contextmanager
def _telling_attention(transformer: Any) -> Iterator[None]:
    """With the one implementation that tells what it attends to."""
    usual = transformer.config._attn_implementation
    transformer.set_attn_implementation("eager")
    try:
        yield
    finally:
        transformer.set_attn_implementation(usual)
