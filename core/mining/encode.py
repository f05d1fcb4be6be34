"""A corpus as embeddings on disk: in shards that are kept by what they were made of.

A shard's name is a hash of its texts and of everything that decides what becomes of them: the model's
weights, not its name, the tokenizer, the prompt, the length. So a job that was killed goes on with the first
shard that is missing, and a later job on the same texts finds them all.
"""

import hashlib
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np

from core.evaluation.retrieval import Encode

SHARD = 8192
"""Texts in a shard."""

Role = Literal["query", "document"]


def encode_to_shards(
    texts: Iterable[str],
    role: Role,
    encode: Encode,
    identity: str,
    cache: Path,
    *,
    half: bool = False,
    check_stop: Callable[[], None] = lambda: None,
    tell: Callable[[int, bool], None] = lambda _texts, _known: None,
) -> list[Path]:
    """The files of all shards, in the order of the texts. ``tell`` hears of each: how many texts, known
    before.

    ``identity`` stands for the model and its settings. ``half`` keeps float16. Raises whatever ``encode``
    does.
    """
    folder = cache / "embeddings" / hashlib.sha256(identity.encode()).hexdigest()[:32]
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for shard in _shards(texts):
        check_stop()
        path = folder / f"{_name(shard, role, half=half)}.npy"
        known = path.exists()
        if not known:
            vectors = encode(shard, role).cpu().numpy()
            _write(path, vectors.astype(np.float16 if half else np.float32))
        tell(len(shard), known)
        paths.append(path)
    return paths


def _shards(texts: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(texts)
    while shard := list(islice(rest, SHARD)):
        yield shard


def _name(texts: list[str], role: Role, *, half: bool) -> str:
    digest = hashlib.sha256(f"{role} {half}".encode())
    for text in texts:
        encoded = text.encode()
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
    return digest.hexdigest()


def _write(path: Path, vectors: np.ndarray) -> None:
    """Whole or not there, also after a power cut."""
    temporary = path.with_name(f".{uuid.uuid4().hex}.npy")
    try:
        with temporary.open("wb") as file:
            np.save(file, vectors)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)
