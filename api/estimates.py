"""Estimate the memory and time of a training job before it is queued."""

import math
import os
import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.artifacts import Library
from core.data.rows.reading import Reading
from core.data.rows.row import Reject
from core.data.training_rows.pairs import TrainingRow, read_pairs
from core.errors import InvalidRequest, Problem, ReasonError
from core.jobs.protocol import ArtifactInput, Input
from core.jobs.views import EstimateView, FitView
from core.models.memory import (
    Memory,
    ModelShape,
    Step,
    least_memory,
    operations,
    read_shape,
    training_memory,
)
from core.spec import Resources, TrainSpec
from core.spec.parts.refs import parse_ref
from core.store import Store
from core.store.schema.tables import Worker

_CHARACTERS_PER_TOKEN = 4.0
"""Of English prose in a vocabulary of words' pieces; code has fewer."""

_SECONDS = 1.5
"""How long a dataset is looked at."""

_CORPUS_BYTES = 64 << 20
_LOOKED_AT_MODELS = 50

_LENGTH = 256
"""Tokens of a text of which nothing is known."""


@dataclass(frozen=True)
class Seen:
    """What a look at the rows has shown. Characters are means of a text."""

    rows: int
    whole: bool  # all rows were seen
    query: float
    document: float
    documents_per_row: float


def estimate_training(
    spec: TrainSpec,
    inputs: Mapping[str, Input],
    store: Store,
    library: Library,
    seen: Seen | None = None,
) -> EstimateView:
    """Return the estimate. Values that are unknown are null, and ``notes`` has the reason.

    ``seen``: what the rows are like, where they are not there yet.
    """
    notes: list[str] = []
    workers = [worker for worker, _ in store.workers.alive(60)]
    device, precision = _device(spec, workers)
    if wants_gpu_in_vain(spec.resources, device, workers):
        notes.append(IN_VAIN)
    shape = find_shape(spec.base_model, inputs, library, notes)
    seen = seen or _look(spec, notes)
    step, lengths = _step(spec, seen, shape)
    found = EstimateView(
        device=device,
        precision=precision,
        lengths=lengths,
        rows=seen.rows if seen and seen.whole else None,
        notes=notes,
    )
    notes = found.notes  # a list of its own
    if spec.max_steps is not None:
        found.steps = spec.max_steps
    elif found.rows is not None:
        of_update = spec.batch_size * spec.gradient_accumulation_steps
        found.steps = max(1, math.ceil(found.rows * spec.epochs / of_update))
    if shape is None:
        return found
    processes = _processes(spec, device)

    def memory(cached: bool) -> Memory:
        return training_memory(
            spec,
            shape,
            step,
            device=device,
            precision=precision,
            cached=cached,
            rows=found.rows,
            processes=processes,
        )

    if spec.loss.cached == "auto":
        room = max((room_of(worker, spec.resources, device) for worker in workers), default=None)
        found.cached = room is not None and memory(cached=False).total > 0.8 * room
    else:
        found.cached = spec.loss.cached
    found.memory = memory(found.cached).as_dict()
    found.least_memory_bytes = least_memory(
        spec, shape, device=device, precision=precision, processes=processes
    )
    found.workers = fits(workers, spec.resources, device, found.least_memory_bytes, notes)
    rate = rate_of(store, device, shape, notes)
    if rate is not None and found.steps is not None:
        pairs = min(spec.batch_size, found.rows or spec.batch_size)
        tokens = step.tokens(pairs) * spec.gradient_accumulation_steps
        found.seconds = round(found.steps * operations(shape, tokens) / rate / processes, 1)
    return found


def _processes(spec: TrainSpec, device: str) -> int:
    """How many share the training."""
    gpus = spec.resources.gpus
    return gpus if isinstance(gpus, int) and device == "cuda" else 1


def check_memory(spec: TrainSpec, inputs: Mapping[str, Input], store: Store, library: Library) -> int | None:
    """The bytes that a GPU must have for the job at least; None where it is not known.

    Raises `InvalidRequest`, with the estimate, for what no worker that is up could ever hold.
    """
    workers = [worker for worker, _ in store.workers.alive(60)]
    shape = find_shape(spec.base_model, inputs, library, [])
    if shape is None:
        return None
    device, precision = _device(spec, workers)
    processes = _processes(spec, device)
    needed = least_memory(spec, shape, device=device, precision=precision, processes=processes)
    if workers and (most := max(room_of(worker, spec.resources, device) for worker in workers)) < needed:
        of_gpu = device == "cuda"
        shards = ", sharding: fsdp over several GPUs" if of_gpu and spec.sharding == "none" else ""
        message = (
            f"the job needs at least {needed / 1e9:.1f} GB even with the smallest micro-batches, but no "
            f"worker has more than {most / 1e9:.1f} GB{' per GPU' if of_gpu else ''}. Use lora with "
            f"quantization, an 8-bit optimizer{', a CPU (resources.gpus: 0)' if of_gpu else ''}{shards} "
            "or a smaller model"
        )
        refused = InvalidRequest(message, [Problem("base_model", message)])
        refused.extra = {"estimate": estimate_training(spec, inputs, store, library).model_dump(mode="json")}
        raise refused
    if spec.resources.gpus in ("auto", 0):
        return None  # what it runs on is settled by who is there, or it is the CPU
    possible = ("fp32", "bf16") if spec.precision == "auto" else (spec.precision,)
    processes = _processes(spec, "cuda")
    return min(
        least_memory(spec, shape, device="cuda", precision=each, processes=processes) for each in possible
    )


def _device(spec: TrainSpec, workers: list[Worker]) -> tuple[str, str]:
    """(device, precision) that the job would have."""
    device = device_of(spec.resources, workers)
    precision = spec.precision if spec.precision != "auto" else "bf16" if device == "cuda" else "fp32"
    return device, precision


def device_of(resources: Resources, workers: list[Worker]) -> str:
    """What the job would compute on."""
    return "cuda" if resources.gpus != 0 and any(worker.gpus for worker in workers) else "cpu"


# -- the model ---------------------------------------------------------------------------------------


def find_shape(
    reference: str, inputs: Mapping[str, Input], library: Library, notes: list[str]
) -> ModelShape | None:
    """A model in numbers, from its files; None, and a note, where they are not at hand."""
    ref = parse_ref(reference)
    try:
        known = inputs.get(reference)
        if isinstance(known, ArtifactInput):
            uri = known.uri
            names = [entry.path for entry in library.manifest(uri).files]
            return read_shape(names, lambda name: library.open(uri, name))
        folder = Path(ref.target) if ref.scheme == "file" else None
        if ref.scheme == "hf":
            folder = _cached_from_hub(ref.target, ref.revision)
        if folder is None:
            notes.append(f"memory is unknown: the size of {reference} is not known on this host.")
            return None
        names = [
            path.relative_to(folder).as_posix() for pattern in ("*", "*/*") for path in folder.glob(pattern)
        ]
        return read_shape(names, lambda name: (folder / name).open("rb"))
    except (OSError, ReasonError) as error:
        notes.append(f"memory is unknown: {reference} cannot be read: {error}")
        return None


def _cached_from_hub(repository: str, revision: str | None) -> Path | None:
    """The copy in the hub's local cache; the newest where no revision is named."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    hub = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    folder = hub / f"models--{repository.replace('/', '--')}"
    if revision is not None:
        named = folder / "refs" / revision
        copy = folder / "snapshots" / (named.read_text().strip() if named.is_file() else revision)
        return copy if copy.is_dir() else None
    copies = (folder / "snapshots").glob("*")
    return max(copies, key=lambda path: path.stat().st_mtime, default=None)


# -- the data ----------------------------------------------------------------------------------------


def _look(spec: TrainSpec, notes: list[str]) -> Seen | None:
    rows = queries = documents = counted = 0
    of_dataset = [0] * len(spec.datasets)
    whole, begun = True, time.monotonic()
    for dataset, row in _rows(spec, notes):
        if time.monotonic() - begun > _SECONDS:
            notes.append(f"rows is unknown: only the first {rows} rows were read.")
            whole = False
            break
        if row is None:
            whole = False
        if not isinstance(row, TrainingRow):
            continue
        rows += 1
        of_dataset[dataset] += 1
        queries += len(row.query) + len(spec.prompts.query or "")
        texts = [row.positive, *row.negatives]
        counted += len(texts)
        documents += sum(len(text) for text in texts) + len(texts) * len(spec.prompts.document or "")
    if not rows:
        if whole:
            notes.append("No row that can be trained on was found in the data.")
        return None
    used = sum(count if spec.sample is None else min(count, spec.sample) for count in of_dataset)
    if spec.evaluation.holdout is not None:
        used = max(1, round(used * (1 - spec.evaluation.holdout)))
    return Seen(used, whole, queries / rows, documents / counted, counted / rows)


def _rows(spec: TrainSpec, notes: list[str]) -> Iterator[tuple[int, TrainingRow | Reject | None]]:
    """(number of the dataset, record) of all that lie in files; None for one that is not read here."""
    for number, source in enumerate(spec.datasets):
        ref = parse_ref(source.ref)
        if ref.scheme != "file":
            notes.append(f"{source.ref} was not read: an estimate reads only file: references.")
            yield number, None
            continue
        if _corpus_bytes(Path(ref.target)) > _CORPUS_BYTES:  # it is read whole before its first row
            notes.append(f"{source.ref} was not read: it is too large for an estimate.")
            yield number, None
            continue
        try:
            reading = Reading.of(source, source.split)
            reading.labels = "defer"  # what they mean changes no length
            for row in read_pairs(Path(ref.target), reading=reading):
                yield number, row
        except (ReasonError, OSError, ImportError) as error:  # Parquet's library is the worker's
            notes.append(f"{source.ref} cannot be read: {error}")
            yield number, None


def _corpus_bytes(path: Path) -> int:
    if not path.is_dir():
        return 0
    return sum(file.stat().st_size for pattern in ("corpus.*", "queries.*") for file in path.glob(pattern))


def _step(spec: TrainSpec, seen: Seen | None, shape: ModelShape | None) -> tuple[Step, dict[str, Any] | None]:
    known = (shape.set_length, shape.positions) if shape else ()
    cap = min((length for length in known if length), default=512)
    settled = {}
    for role, asked in (("query", spec.lengths.query), ("document", spec.lengths.document)):
        limit = cap if asked == "auto" else asked
        characters = getattr(seen, role) if seen else _LENGTH * _CHARACTERS_PER_TOKEN
        settled[role] = min(characters / _CHARACTERS_PER_TOKEN + 2, limit)
    lengths = {role: {"mean": round(value, 1), "approximate": True} for role, value in settled.items()}
    documents = seen.documents_per_row if seen else 1.0
    for mined in (spec.mine, spec.remine):
        if mined is not None:
            own = documents - 1.0 if mined.keep_own == "always" else 0.0
            documents = max(documents if mined.keep_own == "auto" else 0.0, 1.0 + mined.num_negatives + own)
    if spec.resample is not None:
        documents = min(documents, 1.0 + spec.resample.negatives)
    step = Step(settled["query"], settled["document"], documents)
    return step, lengths if seen else None


# -- the fleet ---------------------------------------------------------------------------------------


IN_VAIN = "The job needs a GPU, but no worker has one: the numbers are for a CPU."


def wants_gpu_in_vain(resources: Resources, device: str, workers: list[Worker]) -> bool:
    """Whether so many GPUs are asked for and no worker has any."""
    return resources.gpus not in ("auto", 0) and bool(workers) and device == "cpu"


def fits(
    workers: list[Worker], resources: Resources, device: str, least: int, notes: list[str]
) -> list[FitView]:
    """Which workers can hold a job that needs ``least`` bytes; a note where there is none to ask."""
    if not workers:
        notes.append("workers is empty: no worker is running.")
    possible = not wants_gpu_in_vain(resources, device, workers)
    return [
        FitView(worker=worker.id, host=worker.host, memory_bytes=room, fits=possible and least <= room)
        for worker in workers
        for room in [room_of(worker, resources, device)]
    ]


def room_of(worker: Worker, resources: Resources, device: str) -> int:
    """Bytes that each of the job's processes can have there."""
    if device == "cpu":
        return int(worker.memory_bytes)
    sizes = sorted((gpu.memory_bytes for gpu in worker.gpus), reverse=True)
    wanted = 1 if resources.gpus == "auto" else resources.gpus
    return sizes[wanted - 1] if wanted <= len(sizes) else 0


_ALIKE = 4.0
"""Models whose operations for a token differ by less than this factor reach about the same rate."""

_COMPARABLE = 64.0


def rate_of(store: Store, device: str, shape: ModelShape, notes: list[str]) -> float | None:
    """Operations a second of the last trainings on such a device, of models of about this size.

    A small model spends its time between the operations, so its rate says little of a large one: where no
    model of this size was trained, that of the nearest size counts, with a note. None, with a note, where
    there is none to compare.
    """
    models, _ = store.artifacts.page("model", limit=_LOOKED_AT_MODELS)
    wanted = operations(shape, 1)
    rates: list[tuple[float, float]] = []  # how far the sizes are apart, operations a second
    for model in models:
        facts = model.manifest.get("metadata", {})
        if facts.get("device") != device or not facts.get("operations") or not facts.get("training_seconds"):
            continue
        rate = facts["operations"] / facts["training_seconds"] / facts.get("processes", 1)
        if facts.get("tokens") and wanted:
            apart = abs(math.log(facts["operations"] / facts["tokens"] / wanted))
            rates.append((apart, rate))
    alike = [rate for apart, rate in rates if apart <= math.log(_ALIKE)]
    if alike:
        return statistics.median(alike[:5])
    nearest = min(rates, default=None)
    if nearest is None or nearest[0] > math.log(_COMPARABLE):
        of_size = " of about this size" if rates else ""
        notes.append(f"seconds is unknown: no training of a model{of_size} has finished on a {device} yet.")
        return None
    notes.append("seconds is rough: only models of another size were trained here.")
    return nearest[1]
