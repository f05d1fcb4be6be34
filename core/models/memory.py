"""Bytes and seconds that a training needs, by arithmetic. No torch: the API asks as well."""

import itertools
import json
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import IO, Any

from core.errors import BadModel
from core.spec.train import TrainSpec

_PROCESS = {"cpu": 840_000_000, "cuda": 600_000_000, "mps": 840_000_000}
"""On a CPU the imported libraries, measured; on a GPU the CUDA context with its libraries' workspaces."""

OPTIMIZER_BYTES = {"adamw": 8, "adamw_8bit": 2, "paged_adamw_8bit": 2, "adafactor": 0, "sgd": 0}
"""Bytes a trained parameter; Adafactor keeps sums of rows and columns only."""

_WEIGHT = {None: 4.0, "int8": 1.0, "int4": 0.53}
"""Bytes of a linear layer's parameter; NF4 with its doubly quantized scales."""

_HELD_BYTES = 1_500_000_000

_HOLES = 0.15
"""Of all that a batch's micro-batches keep at some time, what is held after it was freed, as measured."""

PACKING_TOKENS = {"cpu": 2048, "cuda": 16_384, "mps": 8192}
"""``micro_batch_tokens: auto``. On a CPU small ones stay in its caches; a GPU wants large ones."""


@dataclass(frozen=True)
class ModelShape:
    """A transformer in numbers."""

    parameters: int
    words: int  # parameters of the table of words
    layers: int
    hidden: int
    intermediate: int
    heads: int
    dropout: float
    attention_dropout: float
    positions: int | None
    set_length: int | None = None  # tokens after which it is set to cut

    @property
    def linear(self) -> int:
        """Parameters of the layers' matrices, as they are stored: some models use a layer several times."""
        return min(self.layers * self.of_layer, self.parameters - self.words)

    @property
    def of_layer(self) -> int:
        return 4 * self.hidden**2 + 2 * self.hidden * self.intermediate


def shape_of(config: dict[str, Any], parameters: int) -> ModelShape:
    """From a model's config.json, whose fields have several names. Raises `BadModel` when it lacks them."""

    def first(*names: str) -> Any:
        return next((config[name] for name in names if config.get(name) is not None), None)

    hidden = first("hidden_size", "d_model", "dim", "n_embd")
    layers = first("num_hidden_layers", "num_layers", "n_layers", "n_layer")
    if not hidden or not layers:
        raise BadModel("its config.json does not give the hidden size and the number of layers")
    of_word = int(config.get("embedding_size") or hidden)
    numbers = {
        "words": int(config.get("vocab_size") or 0) * of_word,
        "layers": int(layers),
        "hidden": int(hidden),
        "intermediate": int(first("intermediate_size", "d_ff", "hidden_dim", "n_inner") or 4 * hidden),
        "heads": int(first("num_attention_heads", "n_heads", "n_head") or 1),
    }
    if min(*numbers.values(), parameters) < 0:
        raise BadModel("its config.json has a negative size")
    numbers["words"] = min(numbers["words"], parameters)
    positions = first("max_position_embeddings", "n_positions")
    return ModelShape(
        parameters=parameters,
        **numbers,
        dropout=float(first("hidden_dropout_prob", "dropout", "resid_pdrop") or 0.0),
        attention_dropout=float(
            first("attention_probs_dropout_prob", "attention_dropout", "attn_pdrop") or 0.0
        ),
        positions=positions if isinstance(positions, int) and positions > 0 else None,
    )


def static_shape(parameters: int, dimension: int) -> ModelShape:
    """Of a model that is a table of words' vectors, ``parameters`` in all."""
    return ModelShape(parameters, parameters, 0, dimension, 0, 1, 0.0, 0.0, None)


def read_shape(names: Iterable[str], open_file: Callable[[str], IO[bytes]]) -> ModelShape:
    """From the files of a model's folder, without its weights. Raises `BadModel`."""
    names = sorted(names)
    # Of the model itself and of modules such as 2_Dense/; a checkpoint in its folder is no part of it.
    weights = [name for name in names if name.endswith(".safetensors") and re.match(r"[^/]+$|\d+_", name)]
    if not weights:
        raise BadModel("it has no .safetensors file")
    try:
        if _is_static(names, open_file):
            tables = [_shapes(open_file, path) for path in weights]
            [dimension] = {shape[-1] for shapes in tables for shape in shapes if len(shape) == 2}
            return static_shape(sum(map(math.prod, itertools.chain(*tables))), dimension)
        for name in names:
            if name.rpartition("/")[2] == "config.json":
                with open_file(name) as file:
                    config = json.load(file)
                if "model_type" in config or "hidden_size" in config:
                    tensors = itertools.chain(*(_shapes(open_file, path) for path in weights))
                    shape = shape_of(config, sum(map(math.prod, tensors)))
                    return replace(shape, set_length=_set_length(names, open_file))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise BadModel(f"its files cannot be read as a model ({error})") from error
    raise BadModel("it has no config.json that describes a transformer")


def _set_length(names: list[str], open_file: Callable[[str], IO[bytes]]) -> int | None:
    """What a sentence-transformers folder says of its own."""
    for name in names:
        if name.rpartition("/")[2] == "sentence_bert_config.json":
            with open_file(name) as file:
                length = json.load(file).get("max_seq_length")
            return length if isinstance(length, int) and length > 0 else None
    return None


def _is_static(names: list[str], open_file: Callable[[str], IO[bytes]]) -> bool:
    if "modules.json" not in names:
        return False
    with open_file("modules.json") as file:
        return str(json.load(file)[0]["type"]).endswith(".StaticEmbedding")


def _shapes(open_file: Callable[[str], IO[bytes]], path: str) -> list[list[int]]:
    """Of all tensors, from the header of a safetensors file."""
    with open_file(path) as file:
        size = int.from_bytes(file.read(8), "little")
        if not 0 < size < 100_000_000:
            raise BadModel(f"{path} is not a safetensors file")
        header = json.loads(file.read(size))
    return [
        [int(side) for side in tensor["shape"]] for name, tensor in header.items() if name != "__metadata__"
    ]


@dataclass(frozen=True)
class Step:
    """What an update's batch is made of. Lengths are tokens after cutting, on average or at most."""

    query_length: float
    document_length: float
    documents_per_row: float

    def tokens(self, batch_size: int) -> int:
        return int(batch_size * (self.query_length + self.documents_per_row * self.document_length))


@dataclass(frozen=True)
class Memory:
    """Bytes at the peak of a step, by part."""

    process: int
    weights: int
    gradients: int
    optimizer: int
    activations: int
    loss: int
    workspace: int

    @property
    def total(self) -> int:
        return sum(asdict(self).values())

    def as_dict(self) -> dict[str, int]:
        return {**asdict(self), "total": self.total}


def trained_parameters(spec: TrainSpec, shape: ModelShape) -> int:
    """How many parameters are trained, as far as the shape tells."""
    if spec.lora is not None:
        return shape.layers * 4 * 2 * shape.hidden * spec.lora.r
    if spec.freeze_base:
        return 0
    if spec.train_last_n is not None:
        return min(spec.train_last_n, shape.layers) * shape.of_layer
    return shape.parameters


def layer_bytes_per_token(
    spec: TrainSpec, shape: ModelShape, *, length: float, device: str, precision: str
) -> float:
    """What a transformer's layer keeps of a token for the backward pass.

    As Korthikanti et al. 2022 (arXiv 2205.05198) count, for attention that does not keep its matrices: of
    the layer its input, queries, keys, values, the attention's output twice, two sums and one norm, and the
    feed-forward's two inner vectors. A CPU's attention keeps its matrices where they have dropout.
    """
    small = 4 if precision == "fp32" else 2
    if spec.lora is None:
        wide, narrow, inner = 4, 5, 2 * shape.intermediate
        if precision != "fp32":  # every matrix keeps its input cast, too
            narrow += 2
    else:  # frozen matrices need no inputs
        wide, narrow, inner = 2, 4, shape.intermediate
    # Norms and sums stay in float32.
    of_layer = (4.0 * wide + small * narrow) * shape.hidden + small * inner
    mask = 4 if device == "cpu" else 1  # of dropout: numbers on a CPU, bytes on a GPU
    if shape.dropout > 0:
        of_layer += 2 * shape.hidden * mask
    if device == "cpu" and shape.attention_dropout > 0:
        of_layer += shape.heads * length * (2 * small + mask)
    if spec.lora is not None:
        of_layer += 4 * small * spec.lora.r
        if spec.lora.dropout > 0:
            of_layer += 4 * shape.hidden * (small + mask)
    return of_layer


def may_hold(spec: TrainSpec, *, cached: bool) -> int | None:
    """Bytes of freed memory that a process on a CPU holds for its next micro-batch; None: all of it.

    To have them anew takes time, up to a third of a step's. Where little is kept of a micro-batch, what is
    held becomes most of the peak; and who asks for adapters, checkpointing or shards has asked for memory.
    """
    if spec.lora is not None or spec.gradient_checkpointing or spec.sharding == "fsdp":
        return 1
    return _HELD_BYTES if cached else None


def training_memory(
    spec: TrainSpec,
    shape: ModelShape,
    step: Step,
    *,
    device: str,
    precision: str,
    cached: bool,
    rows: int | None = None,
    processes: int = 1,
) -> Memory:
    """The peak of a step whose texts are as long as ``step`` says. No batch has more than ``rows``.

    Of one process; several share the texts of a batch, and with ``sharding`` the model.
    """
    trained = trained_parameters(spec, shape)
    pairs = spec.batch_size if rows is None else min(spec.batch_size, rows)
    if spec.pads_to_one_length:
        width = max(step.query_length, step.document_length)
        step = Step(width, width, step.documents_per_row)
    batch = step.tokens(pairs)
    if spec.family == "cross_encoder":  # each of a query's documents is read with it
        others = 0 if spec.loss.in_batch_negatives == "auto" else spec.loss.in_batch_negatives
        pair = step.query_length + step.document_length
        batch = int(pairs * (step.documents_per_row + others) * pair)
        step = Step(pair, pair, step.documents_per_row)
    length = max(step.query_length, step.document_length)
    budget = PACKING_TOKENS[device] if spec.micro_batch_tokens == "auto" else spec.micro_batch_tokens
    if spec.micro_batch_size is not None:
        budget = int(spec.micro_batch_size * length)
    batch = max(-(-batch // processes), int(length))
    at_once = min(batch, max(budget, int(length)))
    layer = layer_bytes_per_token(spec, shape, length=length, device=device, precision=precision)
    kept = at_once if cached else batch
    layers = shape.layers
    if spec.freeze_base or spec.train_last_n is not None:  # what lies below is only passed through
        layers = min(spec.train_last_n or 0, layers)
    activations = 12.0 * shape.hidden * kept
    if spec.gradient_checkpointing:  # the inputs of all layers, and one layer whole
        activations += 4 * shape.hidden * layers * kept + layer * at_once
    else:
        activations += layer * layers * kept
    documents = pairs * step.documents_per_row
    frozen_linear = shape.linear if spec.lora is not None else 0
    weights = 4 * (shape.parameters - frozen_linear) + _WEIGHT[spec.quantization] * frozen_linear
    if spec.lora is not None:
        weights += 4 * trained
    gradients, optimizer = 4 * trained, OPTIMIZER_BYTES[spec.optimizer] * trained
    workspace = 4 * at_once * (2 * shape.intermediate + 4 * shape.hidden)
    if spec.sharding == "fsdp":
        workspace += _gathered(spec, shape, trained, 4 if precision == "fp32" else 2)
        held = 0 if spec.offload and device != "cpu" else 1 / processes
        weights, gradients, optimizer = int(weights * held), int(gradients * held), int(optimizer * held)
    elif precision != "fp32":
        workspace += 2 * shape.linear  # autocast's copies
    if device == "cpu":
        holes = _HOLES * activations * (batch - at_once) / kept
        workspace += int(min(may_hold(spec, cached=cached) or holes, holes))
    if trained == shape.parameters:
        workspace += 4 * shape.words  # the gradient of the table of words, before it is added
    loss = 3 * 4 * pairs * documents + 2 * 4 * (pairs + documents) * shape.hidden
    if spec.family == "late_interaction":  # vectors and their gradient; of MaxSim the maxima and their places
        loss += 2 * 4 * 128 * batch + 8 * pairs * step.query_length * documents
    return Memory(
        process=_PROCESS[device],
        weights=int(weights),
        gradients=gradients,
        optimizer=optimizer,
        activations=int(activations),
        loss=int(loss),
        workspace=int(workspace),
    )


def _gathered(spec: TrainSpec, shape: ModelShape, trained: int, size: int) -> int:
    """Bytes of what a sharded model has whole at the same time: what is in no layer, a layer and the next one
    that is fetched ahead; and the gradients of the first two until they are summed."""
    layer = shape.linear // max(1, shape.layers)
    rest = shape.parameters - shape.linear
    of_gradients = rest + layer if trained == shape.parameters else trained // max(1, shape.layers)
    return size * (rest + 2 * layer) + size * of_gradients


READING_TOKENS = {"cpu": 2048, "cuda": 65_536, "mps": 16_384}
"""Of a micro-batch where no gradient is wanted."""


def reading_memory(shape: ModelShape | None, *, device: str, tokens: int | None = None) -> dict[str, int]:
    """Bytes by part where a model reads texts and nothing is trained: its float32 weights as they are loaded,
    and of a micro-batch of ``tokens`` the widest layer. Without a model the libraries alone."""
    parts = {"process": _PROCESS[device], "weights": 0, "activations": 0}
    if shape is not None:
        parts["weights"] = 4 * shape.parameters
        widest = 6 * shape.hidden + 2 * shape.intermediate
        parts["activations"] = 4 * (tokens or READING_TOKENS[device]) * widest
    return {**parts, "total": sum(parts.values())}


def least_memory(
    spec: TrainSpec, shape: ModelShape, *, device: str, precision: str, processes: int = 1
) -> int:
    """Bytes below which one of the job's processes cannot run at all, however small its micro-batches are
    made."""
    shortest = Step(8, 8, 1)
    one = spec.model_copy(update={"micro_batch_tokens": 64, "micro_batch_size": None, "batch_size": 2})
    return training_memory(
        one, shape, shortest, device=device, precision=precision, cached=True, processes=processes
    ).total


def operations(shape: ModelShape, tokens: float) -> float:
    """Operations of forward and backward pass over so many tokens: six a number of the layers' matrices."""
    return 6.0 * shape.layers * shape.of_layer * tokens
