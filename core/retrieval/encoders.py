"""Models that make vectors of texts, with settings of their own and shards in the job's cache.

What an evaluation, a mining job and an embed job have in common: who has encoded a corpus before them, in
whatever kind of job, has done so for all of them.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from core.engine.batching import Packing
from core.engine.models.identity import Identity
from core.families import dense, late_interaction
from core.families.late_interaction import Ragged
from core.families.static import packing_of
from core.models.memory import READING_TOKENS
from core.native_errors import reading_cache
from core.ranking.search import check_shard
from core.retrieval.encode import EncodeShard, Role, encode_to_shards
from core.retrieval.system_facts import SystemFacts
from core.runtime.context import RunContext
from core.runtime.devices import choose_precision
from core.spec.parts.models import Prompts, PruneEmbeddings

_FLOAT = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class DenseEncoder:
    """One vector a text. ``half`` keeps shards in float16; ``batch_size`` texts are encoded at once, by
    default as many as a token budget allows. Raises `BadModel`, `BadSpec`."""

    def __init__(
        self,
        context: RunContext,
        reference: str,
        *,
        prompts: Prompts,
        max_length: int | None = None,
        compute: str = "auto",
        half: bool = False,
        batch_size: int | None = None,
    ) -> None:
        self._context, self._half = context, half
        self.device = context.device
        precision = choose_precision(compute, self.device)
        context.phase("loading")
        self.model = dense.load_model(context, reference, self.device).eval()
        if max_length is not None:
            self.model.max_seq_length = min(max_length, dense.context_length(self.model))
        identity = Identity.of(self.model)
        self.model.to(_FLOAT[precision])
        packing = replace(packing_for(self.device, self.model), texts=batch_size)
        if self.device == "cuda":
            packing = replace(packing, longest=dense.context_length(self.model))
        self.encode = dense.make_encode(self.model, prompts, packing, context.check_stop)
        self.dimension: int = dense.dimension_of(self.model)
        self.facts = SystemFacts(
            model=reference,
            family="dense",
            weights_sha256=identity.weights_sha256,
            model_sha256=identity.model_sha256,
            max_length=self.model.max_seq_length,
            prompts=prompts.said(),
            similarity=self.model.similarity_fn_name,
            precision=precision,
            dimension=self.dimension,
            device=self.device,
        )
        self._keys = {
            role: identity.key(role, precision, getattr(prompts, role)) for role in ("query", "document")
        }
        self.key = identity.key(precision, prompts.model_dump())

    def vectors(self, texts: Iterable[str]) -> np.ndarray:
        """Of queries, which are few. [texts, dim]"""
        return self.encode(list(texts), "query").float().cpu().numpy()

    def shards(self, texts: Iterable[str], total: int, name: str, role: Role) -> list[Path]:
        """The embeddings of texts as files [texts, dim]; ``name`` is what they are called."""
        return encode_and_tell(
            self._context,
            texts,
            total,
            name,
            role,
            self.encode,
            self._keys[role],
            half=self._half,
        )


class TokenEncoder:
    """One vector a token: a shard of 1,024 documents of 200 tokens takes 100 MB, half of it with ``half``."""

    SHARD = 1024

    def __init__(
        self,
        context: RunContext,
        reference: str,
        *,
        prompts: Prompts,
        max_length: int | None = None,
        prune: PruneEmbeddings | None = None,
        half: bool = False,
        batch_size: int | None = None,
    ) -> None:
        self._context, self._half, self._prompts = context, half, prompts
        self.device = context.device
        context.phase("loading")
        self.model = late_interaction.load_model(context, reference, self.device, max_length)
        packing = replace(packing_for(self.device, self.model), texts=batch_size)
        self.encode = late_interaction.make_encode(self.model, packing, context.check_stop, prune=prune)
        model, identity = self.model, Identity.of(self.model)
        self.dimension: int = model[-1].out_features
        self.facts = SystemFacts(
            model=reference,
            family="late_interaction",
            weights_sha256=identity.weights_sha256,
            model_sha256=identity.model_sha256,
            max_length=model.document_length,
            prompts=prompts.said(),
            similarity="maxsim",
            precision="fp32",
            dimension=self.dimension,
            device=self.device,
        )
        pruned = prune.model_dump() if prune is not None else None
        self._key = identity.key(pruned)  # prompts are a part of the texts
        self.key = identity.key(pruned, prompts.model_dump())

    def vectors(self, texts: Iterable[str]) -> Ragged:
        """Of queries, which are few."""
        prompt = self._prompts.query or ""
        return self.encode([prompt + text for text in texts], "query")

    def shards(self, texts: Iterable[str], total: int, name: str, role: Role) -> list[Path]:
        """Files that `read_tokens` reads, of ``SHARD`` texts."""
        prompt = getattr(self._prompts, role) or ""
        return encode_and_tell(
            self._context,
            (prompt + text for text in texts),
            total,
            name,
            role,
            self.encode,
            self._key,
            half=self._half,
            size=self.SHARD,
        )


def read_tokens(path: Path) -> Ragged:
    """A shard of a `TokenEncoder`. Raises `BadModel`."""
    with reading_cache(path), np.load(path) as file:
        vectors, counts = file["vectors"], file["counts"]
    check_shard(vectors)
    return Ragged(vectors, counts)


def packing_for(device: str, model: Any) -> Packing:
    """How texts are packed where no gradient is wanted."""
    return packing_of(
        model, Packing(READING_TOKENS[device], multiple=8 if device == "cuda" else 1, overhead=64)
    )


def encode_and_tell(
    context: RunContext,
    texts: Iterable[str],
    total: int,
    name: str,
    role: Role,
    encode: EncodeShard,
    key: str,
    *,
    half: bool,
    size: int | None = None,
) -> list[Path]:
    """As `encode_to_shards`, in the job's cache; tells how far it is, and how much of it was there."""
    done = known = 0

    def tell(count: int, was_there: bool) -> None:
        nonlocal done, known
        done += count
        known += count if was_there else 0
        context.progress(done, total)

    paths = encode_to_shards(
        texts,
        role,
        encode,
        key,
        context.request.cache,
        size=size,
        half=half,
        check_stop=context.check_stop,
        tell=tell,
    )
    if known:
        context.notice(f"{known} of {done} {name} had been encoded before.")
    return paths
