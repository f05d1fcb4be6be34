"""Estimate the memory and time of prepare, mine, evaluate and embed jobs."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from api.estimates import (
    IN_VAIN,
    device_of,
    find_shape,
    fits,
    rate_of,
    room_of,
    wants_gpu_in_vain,
)
from core.artifacts import Library
from core.errors import InvalidRequest, Problem, ReasonError
from core.jobs.protocol import ArtifactInput, Input, UrlInput
from core.jobs.views import EstimateView
from core.models.memory import ModelShape, operations, reading_memory
from core.spec import AnySpec, EmbedSpec, EvaluateSpec, MineSpec
from core.spec.parts.reference_places import find_references
from core.spec.parts.refs import parse_ref
from core.store import Store

_BYTES_PER_TOKEN = 4.0
"""Of English prose in UTF-8 and a vocabulary of words' pieces."""

_MOST_FILES = 10_000


def estimate_reading(
    spec: AnySpec, inputs: Mapping[str, Input], store: Store, library: Library
) -> EstimateView:
    """Return the estimate. Values that are unknown are null, and ``notes`` has the reason."""
    notes: list[str] = []
    workers = [worker for worker, _ in store.workers.alive(60)]
    device = device_of(spec.resources, workers)
    models = {reference: find_shape(reference, inputs, library, notes) for reference in models_of(spec)}
    known = [shape for shape in models.values() if shape is not None]
    precision = "bf16" if device == "cuda" else "fp32"
    found = EstimateView(device=device, precision=precision, notes=notes)
    notes = found.notes  # a list of its own
    tokens = _tokens(spec, inputs, library, notes)
    if len(known) < len(models):
        return found
    parts = [reading_memory(shape, device=device) for shape in known] or [reading_memory(None, device=device)]
    found.memory = max(parts, key=lambda part: part["total"])  # one model is held at a time
    found.least_memory_bytes = _least(known, device)
    if wants_gpu_in_vain(spec.resources, device, workers):
        notes.append(IN_VAIN)
    found.workers = fits(workers, spec.resources, device, found.least_memory_bytes, notes)
    rate = None
    if known:
        rate = rate_of(store, device, max(known, key=lambda shape: operations(shape, 1)), notes)
    else:
        notes.append("seconds is unknown: it is estimated only for jobs in which a model reads texts.")
    if rate is not None and tokens is not None:
        forward = sum(operations(shape, tokens) for shape in known) / 3  # a third of forward and backward
        found.seconds = round(forward / rate, 1)
    return found


def check_reading_memory(spec: AnySpec, inputs: Mapping[str, Input], store: Store, library: Library) -> None:
    """Raises `InvalidRequest`, with the estimate, for models that no worker that is up could ever hold."""
    workers = [worker for worker, _ in store.workers.alive(60)]
    if not workers:
        return
    device = device_of(spec.resources, workers)
    shapes = [find_shape(reference, inputs, library, []) for reference in models_of(spec)]
    needed = _least([shape for shape in shapes if shape is not None], device)
    most = max(room_of(worker, spec.resources, device) for worker in workers)
    if needed > most and any(shapes):
        message = (
            f"the model needs at least {needed / 1e9:.1f} GB of memory, but no worker has more than "
            f"{most / 1e9:.1f} GB"
        )
        refused = InvalidRequest(message, [Problem(_place_of_model(spec), message)])
        refused.extra = {"estimate": estimate_reading(spec, inputs, store, library).model_dump(mode="json")}
        raise refused


def models_of(spec: AnySpec) -> list[str]:
    """References of the models that read texts in the job, each once."""
    found: list[str] = []
    match spec:
        case EmbedSpec():
            found = [spec.model]
        case MineSpec():
            found = [spec.model]
            if spec.filters.cross_encoder is not None:
                found.append(spec.filters.cross_encoder.model)
        case EvaluateSpec():
            found = [model.ref for model in spec.models]
    return [reference for reference in dict.fromkeys(found) if reference != "bm25"]


def _place_of_model(spec: AnySpec) -> str:
    return "models" if isinstance(spec, EvaluateSpec) else "model"


def _least(shapes: list[ModelShape], device: str) -> int:
    needs = [reading_memory(shape, device=device, tokens=64)["total"] for shape in shapes]
    return max(needs, default=reading_memory(None, device=device)["total"])


def _tokens(spec: AnySpec, inputs: Mapping[str, Input], library: Library, notes: list[str]) -> float | None:
    """About how many its texts have, from the sizes of files. None, and a note, for what is elsewhere."""
    total = 0
    if isinstance(spec, EmbedSpec) and spec.texts:
        total = sum(len(text.encode()) for text in spec.texts)
    places = find_references(spec, spec.REFERENCES)
    for reference in dict.fromkeys(found.text for found in places if found.role == "dataset"):
        size = _bytes(reference, inputs, library)
        if size is None:
            notes.append(f"seconds is unknown: the size of {reference} is not known on this host.")
            return None
        total += size
    notes.append(
        f"About {total / _BYTES_PER_TOKEN:,.0f} tokens, from the sizes of the files ({total:,} bytes)."
    )
    return total / _BYTES_PER_TOKEN


def _bytes(reference: str, inputs: Mapping[str, Input], library: Library) -> int | None:
    known = inputs.get(reference)
    ref = parse_ref(reference)
    try:
        if isinstance(known, ArtifactInput):
            return library.manifest(known.uri).bytes
        if isinstance(known, UrlInput):
            return known.bytes
        if ref.scheme == "file":
            return sum(path.stat().st_size for path in _files(Path(ref.target)))
    except (OSError, ReasonError):
        return None
    return None


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    for number, found in enumerate(path.rglob("*")):
        if number > _MOST_FILES:
            raise OSError("too many files for an estimate")
        if found.is_file():
            yield found
