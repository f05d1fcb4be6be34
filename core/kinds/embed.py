"""An embed job: a corpus -> vectors in files, or a PLAID index."""

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from core.artifacts import fresh_folder
from core.data.rows.hashing import text_hash
from core.data.rows.kept_reading import kept_reading
from core.data.rows.rejects import Rejects
from core.data.rows.remarks import Irregularity, Remarks
from core.data.rows.row import Reject
from core.data.sources.corpus import CORPUS_ROLES, read_corpus
from core.errors import BadData, BadModel, BadSpec
from core.families.detect import family_in
from core.families.late_interaction import Ragged
from core.families.late_interaction.plaid import INDEXED_AT_ONCE, PlaidIndex, check_plaid
from core.jobs.protocol import dump_inputs
from core.ranking.quantization import Codec
from core.ranking.search import shard_vectors
from core.retrieval.embeddings_page import EmbeddingsPage, Shard
from core.retrieval.encode import SHARD
from core.retrieval.encoders import DenseEncoder, TokenEncoder, read_tokens
from core.retrieval.system_facts import SystemFacts
from core.retrieval.texts import TextFile
from core.runtime.context import RunContext
from core.spec.embed import EmbedSpec


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What was written; ``facts`` are of the model."""

    facts: SystemFacts
    dimension: int
    index: str
    vectors: int
    bytes: int
    shards: list[Shard]
    codec: dict[str, Any] | None = None  # of one vector a text
    prune_embeddings: dict[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "facts" and value is not None}


def embed(spec: EmbedSpec, context: RunContext) -> None:
    """Read, encode, store, publish. Raises `Stopped` or a `JobFailure`.

    Encoded shards stay in the job's cache: an attempt goes on where the one before was killed.
    """
    context.phase("preparing")
    work = fresh_folder(context.folder / "work")
    texts, rejects = _read(spec, context, work / "texts.arrow")
    family = family_in(context, spec.model) if spec.family == "auto" else spec.family
    if family == "cross_encoder":
        raise BadModel(f"{spec.model} is a cross-encoder: it scores pairs and makes no vectors")
    out = fresh_folder(work / "embeddings")
    store = _store_tokens if family == "late_interaction" else _store_vectors
    stored = store(spec, context, texts, out)
    facts = stored.facts
    page = EmbeddingsPage.model_validate(
        {
            **facts.as_dict(),
            "compute": facts.precision,
            "precision": spec.precision,
            **stored.as_dict(),
            "prompts": spec.prompts,
            "reference": spec.model,
            "corpus": spec.corpus,
            "role": spec.role,
            "texts": len(texts),
            "texts_kept": spec.keep_texts,
            "unreadable": rejects.count,
            "inputs": dump_inputs(context.request.inputs),
        }
    )
    page.write(out)
    context.metrics = {"embeddings": page.model_dump(include={"texts", "dimension", "precision", "bytes"})}
    context.phase("publishing")
    told = {name: value for name, value in page.as_dict().items() if name not in ("codec", "shards")}
    context.publish("embeddings", "embeddings", out, {"name": spec.name or "embeddings", **told})
    shutil.rmtree(work)


def _read(spec: EmbedSpec, context: RunContext, path: Path) -> tuple[TextFile, Rejects]:
    """All texts under their ids; what has none is named by its content."""
    texts, rejects = TextFile(path), Rejects()
    if spec.texts is not None:
        for number, text in enumerate(spec.texts):
            texts.add(str(number), text)
    if spec.corpus is not None:
        reading = kept_reading(spec.corpus, context.place_of(spec.corpus), spec.split, context.notice)
        for found in read_corpus(context.dataset_path(spec.corpus), spec.split, reading):
            if (rejects.kept + rejects.count) % 4096 == 0:
                context.check_stop()
            if isinstance(found, Reject):
                rejects.add(found)
                continue
            rejects.kept += 1
            name = found.name or f"d{text_hash(found.text):016x}"
            if found.name or not texts.has(name):  # rows name no document, and say the same one often
                texts.add(name, found.text)
        rejects.check(spec.max_reject_share)
        context.notices(reading.report.sentences(spec.corpus, CORPUS_ROLES))
    texts.close()
    if empty := sum(not text.strip() for text in texts.texts()):
        context.notice(f"{empty} of {len(texts)} texts are empty: their vectors say nothing.", "warning")
    if not len(texts):
        raise BadData(f"{spec.corpus} has no documents")
    _tell_repeated(context, texts.remarks)
    if rejects.count:
        context.notice(f"{rejects.count} documents cannot be read and are left out.", "warning")
    return texts, rejects


def _tell_repeated(context: RunContext, remarks: Remarks) -> None:
    """Texts whose id came before are kept: who searches sees both under one id."""
    for kind, what in (
        (Irregularity.DOCUMENT_REPEATED, "with the id and the text of an earlier one"),
        (Irregularity.DOCUMENT_CONFLICT, "with the id of an earlier one, but another text"),
    ):
        if count := remarks.count(kind):
            examples = ", ".join(remarks.examples(kind))
            context.notice(f"texts {what}: {count:,} ({examples}). All of them are kept.", "warning")


# -- one vector a text -------------------------------------------------------------------------------


def _store_vectors(spec: EmbedSpec, context: RunContext, texts: TextFile, out: Path) -> Stored:
    if spec.index == "plaid" or spec.prune_embeddings is not None:
        raise BadSpec(f"{spec.model} has one vector a text: no PLAID index, and no embeddings to prune")
    encoder = DenseEncoder(
        context, spec.model, prompts=spec.prompts, max_length=spec.max_length, compute=spec.compute
    )
    full = encoder.dimension
    if spec.dimension is not None and spec.dimension > full:
        raise BadSpec(f"dimension {spec.dimension}: {spec.model} has {full} dimensions")
    context.phase("encoding")
    paths = encoder.shards(texts.texts(), len(texts), "texts", spec.role)
    context.phase("storing")
    codec = Codec.fitted(
        spec.precision,
        spec.dimension or full,
        cosine=encoder.facts.similarity != "dot",
        sample=shard_vectors(spread(paths, -(-spec.calibration // SHARD))),
    )
    shards: list[Shard] = []
    stored = (codec.encode(vectors) for vectors in shard_vectors(paths))
    for number, (begin, vectors) in enumerate(_regrouped(stored, spec.shard)):
        context.check_stop()
        np.save(out / f"vectors-{number:05}.npy", vectors)
        shards.append(_write_texts(spec, texts, out, number, begin, begin + len(vectors)))
        context.progress(shards[-1].end, len(texts))
    return Stored(
        facts=encoder.facts,
        dimension=codec.dimension,
        index="none",
        codec=codec.as_dict(),
        vectors=len(texts),
        bytes=codec.bytes_per_vector * len(texts),
        shards=shards,
    )


def spread(paths: Sequence[Path], count: int) -> list[Path]:
    """Some of the shards, from all over the corpus: the first ones may be all of one kind."""
    if count >= len(paths):
        return list(paths)
    return [paths[number * len(paths) // count] for number in range(count)]


def _regrouped(blocks: Iterable[np.ndarray], size: int) -> Iterator[tuple[int, np.ndarray]]:
    """(first row, rows) in blocks of ``size`` rows."""
    begin, waiting, held = 0, list[np.ndarray](), 0
    for block in blocks:
        waiting.append(block)
        held += len(block)
        while held >= size:
            together = np.concatenate(waiting)
            yield begin, together[:size]
            begin, waiting, held = begin + size, [together[size:]], held - size
    if held:
        yield begin, np.concatenate(waiting)


def _write_texts(spec: EmbedSpec, texts: TextFile, out: Path, number: int, begin: int, end: int) -> Shard:
    rows = texts.rows(begin, end)
    ids = json.dumps(rows.column("id").to_pylist(), ensure_ascii=False)
    (out / f"ids-{number:05}.json").write_text(ids, encoding="utf-8")
    if spec.keep_texts:
        pq.write_table(rows, out / f"texts-{number:05}.parquet", compression="zstd")
    return Shard(number=number, begin=begin, end=end)


# -- one vector a token ------------------------------------------------------------------------------


def _store_tokens(spec: EmbedSpec, context: RunContext, texts: TextFile, out: Path) -> Stored:
    if spec.precision in ("int8", "binary") or spec.dimension is not None:
        raise BadSpec(
            f"{spec.model} has one vector a token: they are kept as float32 or float16, or in a PLAID index"
        )
    check_plaid(spec.index)
    encoder = TokenEncoder(
        context,
        spec.model,
        prompts=spec.prompts,
        max_length=spec.max_length,
        prune=spec.prune_embeddings if spec.role == "document" else None,
        half=spec.precision == "float16" or spec.index == "plaid",
    )
    context.phase("encoding")
    paths = encoder.shards(texts.texts(), len(texts), "texts", spec.role)
    context.phase("storing")
    plaid = PlaidIndex(out / "plaid", encoder.device, spec.seed) if spec.index == "plaid" else None
    per_file = max(1, spec.shard // TokenEncoder.SHARD) if plaid is None else INDEXED_AT_ONCE
    shards: list[Shard] = []
    vectors = begin = 0
    for number, start in enumerate(range(0, len(paths), per_file)):
        context.check_stop()
        found = Ragged.joined([read_tokens(path) for path in paths[start : start + per_file]])
        shards.append(_write_texts(spec, texts, out, number, begin, begin + len(found)))
        if plaid is not None:
            ids = json.loads((out / f"ids-{number:05}.json").read_text(encoding="utf-8"))
            plaid.add(found, begin, ids)
        else:
            np.save(out / f"vectors-{number:05}.npy", found.vectors)
            np.save(out / f"counts-{number:05}.npy", found.counts)
        begin += len(found)
        vectors += len(found.vectors)
        context.progress(begin, len(texts))
    if plaid is not None:
        plaid.close()
    dimension = encoder.dimension
    kept = sum(path.stat().st_size for path in (out / "plaid").rglob("*") if path.is_file())
    return Stored(
        facts=encoder.facts,
        dimension=dimension,
        index=spec.index,
        vectors=vectors,
        bytes=kept or vectors * dimension * (2 if spec.precision == "float16" else 4),
        prune_embeddings=spec.prune_embeddings.model_dump() if spec.prune_embeddings else None,
        shards=shards,
    )
