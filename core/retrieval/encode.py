"""A corpus as embeddings on disk: in shards that are kept by what they were made of.

A shard's name is a hash of its texts; its folder's is the key of everything that decides what becomes of
them (`engine.models.identity.encoding_key`): weights and configurations of all modules, tokenizer, prompts,
lengths, precision, libraries, and never the model's name. So a job that was killed goes on with the first
shard that is missing, and a later job on the same texts finds them all.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch

from core.artifacts.cache import Cache, touch, whole_file

SHARD = 2048
"""Texts in a shard."""

_KEPT_BYTES = 50 << 30

Role = Literal["query", "document"]


class Vectors(Protocol):
    """What a text's tokens or a text has become: see `core.families.late_interaction.Ragged`."""

    vectors: np.ndarray
    counts: np.ndarray


EncodeShard = Callable[[list[str], Role], torch.Tensor | Vectors]
"""Texts -> [texts, dim], or one vector a token."""


def encode_to_shards(
    texts: Iterable[str],
    role: Role,
    encode: EncodeShard,
    key: str,
    cache: Path,
    *,
    size: int | None = None,
    half: bool = False,
    check_stop: Callable[[], None] = lambda: None,
    tell: Callable[[int, bool], None] = lambda _texts, _known: None,
) -> list[Path]:
    """The files of all shards, in the order of the texts. ``tell`` hears of each: how many texts, known
    before.

    ``key`` stands for the model and its settings. ``half`` keeps float16; ``size`` is texts in a shard.
    A shard is an array [texts, dim], or, of one vector a token, the arrays ``vectors`` and ``counts``. Raises
    whatever ``encode`` does.
    """
    shards = Cache(cache, "embeddings", _KEPT_BYTES, pattern="*/*.npy")
    folder = shards.folder / hashlib.sha256(key.encode()).hexdigest()[:32]
    folder.mkdir(parents=True, exist_ok=True)
    kept = np.float16 if half else np.float32
    paths = []
    for shard in _shards(texts, size or SHARD):
        check_stop()
        path = folder / f"{_name(shard, role, half=half)}.npy"
        known = touch(path)
        if not known:
            encoded = encode(shard, role)
            with whole_file(path) as file:
                if isinstance(encoded, torch.Tensor):
                    np.save(file, encoded.cpu().numpy().astype(kept))
                else:
                    np.savez(file, vectors=encoded.vectors.astype(kept), counts=encoded.counts)
        tell(len(shard), known)
        paths.append(path)
    shards.trim()
    return paths


def _shards(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    rest = iter(texts)
    while shard := list(islice(rest, size)):
        yield shard


def _name(texts: list[str], role: Role, *, half: bool) -> str:
    digest = hashlib.sha256(f"{role} {half}".encode())
    for text in texts:
        encoded = text.encode()
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
    return digest.hexdigest()
