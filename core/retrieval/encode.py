"""A corpus as embeddings on disk: in shards that are kept by what they were made of.

A shard's name is a hash of its texts; its folder's is the key of everything that decides what becomes of
them (`engine.models.identity.encoding_key`): weights and configurations of all modules, tokenizer, prompts,
lengths, precision, libraries, and never the model's name. So a job that was killed goes on with the first
shard that is missing, and a later job on the same texts finds them all.
"""

import contextlib
import hashlib
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal, Protocol

import numpy as np
import torch

SHARD = 2048
"""Texts in a shard."""

_KEPT_BYTES = 50 << 30
_IN_USE_SECONDS = 86_400.0

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
    folder = cache / "embeddings" / hashlib.sha256(key.encode()).hexdigest()[:32]
    folder.mkdir(parents=True, exist_ok=True)
    kept = np.float16 if half else np.float32
    paths = []
    for shard in _shards(texts, size or SHARD):
        check_stop()
        path = folder / f"{_name(shard, role, half=half)}.npy"
        known = _touch(path)
        if not known:
            encoded = encode(shard, role)
            if isinstance(encoded, torch.Tensor):
                vectors = encoded.cpu().numpy().astype(kept)
                _write(path, partial(_save, vectors))
            else:
                arrays = {"vectors": encoded.vectors.astype(kept), "counts": encoded.counts}
                _write(path, partial(_save_several, arrays))
        tell(len(shard), known)
        paths.append(path)
    _trim(cache / "embeddings")
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


def _save(vectors: np.ndarray, file: IO[bytes]) -> None:
    np.save(file, vectors)


def _save_several(arrays: dict[str, Any], file: IO[bytes]) -> None:
    np.savez(file, **arrays)


def _write(path: Path, save: Callable[[IO[bytes]], None]) -> None:
    """Whole or not there, also after a power cut."""
    temporary = path.with_name(f".{uuid.uuid4().hex}.npy")
    try:
        with temporary.open("wb") as file:
            save(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)


def _touch(path: Path) -> bool:
    """Whether it is there; then it is in use."""
    with contextlib.suppress(FileNotFoundError):
        os.utime(path)
        return True
    return False


def _trim(folder: Path) -> None:
    """Drops what was not used for longest, above the limit, and for a day: no running job waits for it."""
    files = []
    for path in folder.glob("*/*.npy"):
        with contextlib.suppress(FileNotFoundError):  # another job has just dropped it
            about = path.stat()
            files.append((about.st_mtime, about.st_size, path))
    kept, in_use = 0, time.time() - _IN_USE_SECONDS
    for last_use, size, path in sorted(files, reverse=True):
        kept += size
        if kept > _KEPT_BYTES and last_use < in_use:
            path.unlink(missing_ok=True)
