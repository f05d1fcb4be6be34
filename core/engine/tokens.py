"""Token ids of texts: how a tokenizer frames them, and training rows made of them."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from transformers import PreTrainedTokenizerBase

from core.errors import BadModel

Ids = Sequence[int] | np.ndarray
"""Token ids of one text, [tokens]."""


@dataclass(frozen=True)
class Frame:
    """What a tokenizer puts around a text, and how it pads."""

    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    pad: int
    pads_left: bool
    cuts_left: bool

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> "Frame":
        """Raises `BadModel` for a tokenizer that does more than put tokens before and after a text."""
        plain = tokenizer("a word", add_special_tokens=False)["input_ids"]
        framed = tokenizer("a word")["input_ids"]
        for start in range(len(framed) - len(plain) + 1):
            if plain and framed[start : start + len(plain)] == plain:
                return cls(
                    tuple(framed[:start]),
                    tuple(framed[start + len(plain) :]),
                    tokenizer.pad_token_id,
                    tokenizer.padding_side == "left",
                    tokenizer.truncation_side == "left",
                )
        raise BadModel(f"{type(tokenizer).__name__} changes a text's tokens when it adds its special ones")

    @property
    def specials(self) -> int:
        """Tokens that stand around every text."""
        return len(self.prefix) + len(self.suffix)

    def put(self, ids: Ids, limit: int) -> np.ndarray:
        """The ids within their special tokens, at most ``limit`` in all."""
        room = max(limit - self.specials, 0)
        if len(ids) > room:
            ids = ids[len(ids) - room :] if self.cuts_left else ids[:room]
        return np.concatenate([self.prefix, ids, self.suffix]).astype(np.int64)


@dataclass(frozen=True)
class Input:
    """What a model reads at once: a text, or a pair of them. All arrays are [tokens]."""

    ids: np.ndarray
    beside: dict[str, np.ndarray] = field(default_factory=dict)
    """What else it is told of each token, by the name of the model's argument; 0 for padding. Without
    ``attention_mask`` all are attended to."""
    vectors: int = 1
    """How many rows come out."""

    @property
    def key(self) -> bytes:
        """Equal for what comes out the same."""
        return b"".join([self.ids.tobytes(), *(array.tobytes() for array in self.beside.values())])


@dataclass(frozen=True)
class TokenRow:
    """A training row in token ids. ``documents``: the positive, then the negatives."""

    query: Ids
    documents: Sequence[Ids]
    scores: list[float] | None = None  # a teacher's, of each document
    guide: "TokenRow | None" = None  # the same texts for another model


@contextlib.contextmanager
def on_all_cores() -> Iterator[None]:
    """Lets fast tokenizers use every core; a job's process tells them not to, because it forks."""
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TOKENIZERS_PARALLELISM"]
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = before


def fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Of everything that decides which ids a text gets."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        content = json.loads(backend.to_str())
        content["truncation"] = content["padding"] = None  # as the last call left them
    else:
        content = [type(tokenizer).__name__, sorted(tokenizer.get_vocab().items())]
    sides = [tokenizer.truncation_side, tokenizer.padding_side]
    specials = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    lower = bool(getattr(tokenizer, "do_lower_case", False))
    whole = json.dumps([content, sides, specials, lower], sort_keys=True)
    return hashlib.sha256(whole.encode()).hexdigest()
