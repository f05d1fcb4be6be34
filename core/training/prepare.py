"""What is settled before the first step of a training: model, rows, lengths, order of batches."""

from dataclasses import dataclass, replace
from typing import Any

from transformers import set_seed

from core.data.retrieval_sets.judgments import RetrievalSet
from core.engine.batching import Packing, TrainingBatches
from core.engine.models.identity import Identity
from core.engine.models.loading import context_length, transformer_of
from core.engine.ranks import Ranks
from core.engine.token_table import TokenTable
from core.errors import BadData, BadSpec
from core.families import dense
from core.families.family import Family, Reader, family_of
from core.families.static import is_static, packing_of
from core.models.memory import (
    PACKING_TOKENS,
    Memory,
    ModelShape,
    Step,
    shape_of,
    static_shape,
    training_memory,
)
from core.runtime.context import RunContext
from core.runtime.devices import choose_precision, free_memory
from core.spec.train import PREFETCH_BATCHES, TrainSpec
from core.training.adapters import choose_trainable, describe_trained
from core.training.arguments import loader_workers
from core.training.checkpoints.resuming import dependencies
from core.training.lengths import ChosenLengths, check_lengths, choose_lengths
from core.training.negatives.choice import ChosenNegatives, choose_negatives
from core.training.negatives.mined_dataset import MinedNegatives, mined_folder
from core.training.negatives.mining_first import MineRows
from core.training.rows import Rows, dataset_names, read_rows

_PACKING = {
    "cpu": Packing(PACKING_TOKENS["cpu"], overhead=64),
    "cuda": Packing(PACKING_TOKENS["cuda"], multiple=8, overhead=4096),
    "mps": Packing(PACKING_TOKENS["mps"], multiple=8, overhead=1024),
}
"""A GPU wants lengths that eight divides; on a CPU such padding is work for nothing.

The overhead is the gradients' sum, once a micro-batch, and on a GPU the time to start its kernels.
"""


@dataclass
class Prepared:
    """Everything that is settled before the first step."""

    family: Family
    model: Any
    base_model_sha256: str
    depends_on: dict[str, str]  # what a checkpoint depends on
    trainable: int
    parameters: int
    rows: Rows
    tokens: TokenTable
    dataset: TokenTable | ChosenNegatives | MinedNegatives  # the tokens as the epochs see them
    reader: Reader
    lengths: ChosenLengths
    batches: TrainingBatches
    evaluation_sets: dict[str, RetrievalSet]  # of the first rank: it evaluates
    device: str
    precision: str
    packing: Packing
    cached: bool
    steps: int
    shape: ModelShape  # before anything was added to the model
    guide: Any = None  # a second model, which is not trained
    guide_packing: Packing | None = None

    @property
    def longest(self) -> Step:
        """A step whose texts are all as long as they may be."""
        limits = self.lengths.limits
        return Step(limits["query"], limits["document"], self.dataset.documents_per_row)

    def memory(self, spec: TrainSpec, processes: int, *, cached: bool, step: Step | None = None) -> Memory:
        """What ``spec`` would take with this model and these rows; ``step``: by default `longest`."""
        return training_memory(
            spec,
            self.shape,
            step or self.longest,
            device=self.device,
            precision=self.precision,
            cached=cached,
            rows=len(self.tokens),
            processes=processes,
        )


def prepare(spec: TrainSpec, context: RunContext, ranks: Ranks, mine_rows: MineRows) -> Prepared:
    """The models, the rows as tokens, the lengths, the order of batches. Only the first rank reads data."""
    device, precision = _settle_device(spec, context)
    set_seed(spec.seed)
    context.phase("loading")
    ranks.broadcast_from_rank0(lambda: _fetch(spec, context))
    family = family_of(spec.family)
    # A model that is to be sharded may not fit on one GPU: it goes there layer by layer.
    model = family.load_for_training(context, spec, "cpu" if spec.sharding == "fsdp" else device)
    check_lengths(spec.lengths, context_length(model))
    base = Identity.of(model)
    shape = shape_of_model(model)
    trainable, parameters = choose_trainable(spec, model, transformer_of(model))
    if trainable < parameters:
        context.notice(
            f"{trainable:,} of {parameters:,} parameters are trained ({trainable / parameters:.2%}): "
            f"{describe_trained(model, transformer_of(model))}."
        )
    ranks.equalize(parameter for parameter in model.parameters() if parameter.requires_grad)
    context.check_stop()
    guide = None
    if spec.loss.guide is not None:
        guide = dense.load_model(context, spec.loss.guide.model, device).eval().requires_grad_(False)

    context.phase("preparing")
    evaluation_sets: dict[str, RetrievalSet] = {}

    def read() -> Rows:
        found, sets = read_rows(spec, context, model, guide, mine_rows)
        evaluation_sets.update(sets)
        return found

    rows = ranks.broadcast_from_rank0(read)
    tokens = rows.open()
    reader = family.make_reader(model, spec)
    lengths = _settle_lengths(spec, context, model, tokens, reader)
    if not getattr(model, "trained", True):  # it has no lengths of its own to be measured with
        family.set_lengths(model, lengths.limits, spec.lengths)
    chosen = choose_negatives(spec, tokens)
    dataset: TokenTable | ChosenNegatives | MinedNegatives = chosen or tokens
    if spec.remine is not None:
        dataset = MinedNegatives(
            tokens,
            mined_folder(context),
            spec.remine.num_negatives,
            beside_own=spec.remine.keep_own == "always",
        )
    if spec.curriculum is not None and spec.epochs < len(spec.curriculum.epochs):
        context.notice(
            f"{spec.epochs:g} epochs see the first of the curriculum's {len(spec.curriculum.epochs)} only.",
            "warning",
        )
    batches, steps = _plan_batches(spec, context, rows.sizes, tokens)

    def packing_for(encoder: Any) -> Packing:
        found = replace(
            packing_of(encoder, _PACKING[device]),
            longest=context_length(encoder),
            texts=spec.micro_batch_size,
        )
        if spec.micro_batch_tokens == "auto":
            return found
        return replace(found, token_budget=spec.micro_batch_tokens)

    packing = packing_for(model)
    if spec.pads_to_one_length:
        together = sum if spec.family == "cross_encoder" else max
        width = min(together(lengths.limits.values()), context_length(model))
        packing = replace(packing, width=width)
    if spec.compile:
        _tell_of_compilation(spec, context, device, steps)
    cached = ranks.broadcast_from_rank0(
        lambda: _use_cache(spec, shape, lengths, dataset, device, precision, context.request.processes)
    )
    if cached and spec.loss.cached == "auto":
        context.notice(
            "The batch takes too much memory at once: its loss is computed in micro-batches (gradient "
            "caching)."
        )
    return Prepared(
        family=family,
        model=model,
        base_model_sha256=base.weights_sha256,
        depends_on=dependencies(
            spec,
            base=base,
            guide=Identity.of(guide) if guide is not None else None,
            rows_sha256=rows.sha256,
            mined=[found.key for found in rows.mined],
            evaluation_sets=evaluation_sets,
        ),
        trainable=trainable,
        parameters=parameters,
        rows=rows,
        tokens=tokens,
        dataset=dataset,
        reader=reader,
        lengths=lengths,
        batches=batches,
        evaluation_sets=evaluation_sets,
        device=device,
        precision=precision,
        packing=packing,
        cached=cached,
        steps=steps,
        shape=shape,
        guide=guide,
        guide_packing=packing_for(guide) if guide is not None else None,
    )


def _settle_device(spec: TrainSpec, context: RunContext) -> tuple[str, str]:
    """(device, precision). Raises `BadSpec` for what the device cannot do."""
    if spec.sharding == "fsdp" and context.device == "mps":
        raise BadSpec("sharding: fsdp needs NVIDIA GPUs or CPU processes: this machine has Apple's GPU")
    if spec.prefetch_batches != PREFETCH_BATCHES and not loader_workers(spec, context.device):
        context.notice("prefetch_batches: no process makes batches ahead (data_loader_workers).", "warning")
    return context.device, choose_precision(spec.precision, context.device)


def _fetch(spec: TrainSpec, context: RunContext) -> None:
    """Models from remote storage into this host's cache, before several processes look for them there."""
    context.resolve(spec.base_model)
    if spec.loss.guide is not None:
        context.resolve(spec.loss.guide.model)
    if spec.evaluation.rerank.retriever != "bm25":
        context.resolve(spec.evaluation.rerank.retriever)


def _settle_lengths(
    spec: TrainSpec, context: RunContext, model: Any, tokens: TokenTable, reader: Reader
) -> ChosenLengths:
    lengths = choose_lengths(
        spec.lengths,
        tokens.counts(),
        specials=reader.specials,
        configured=reader.configured,
        fixed=reader.fixed,
        context=context_length(model),
        seed=spec.seed,
    )
    for role in ("query", "document"):
        found = getattr(lengths, role)
        if found.share_cut >= 1:
            context.notice(
                f"Every {role} is longer than the {found.max_length} tokens of lengths.{role} and is cut: "
                f"the middle one has {found.p50}.",
                "warning",
            )
    context.notice(
        f"Lengths: queries {lengths.query.max_length} tokens ({lengths.query.share_cut:.1%} cut), documents "
        f"{lengths.document.max_length} ({lengths.document.share_cut:.1%} cut)."
    )
    return lengths


def _plan_batches(
    spec: TrainSpec, context: RunContext, sizes: list[int], tokens: TokenTable
) -> tuple[TrainingBatches, int]:
    """The order of all batches, and how many updates they make. ``sizes`` are rows of each dataset."""
    weights = [source.weight for source in spec.datasets if source.weight is not None]
    batches = TrainingBatches(
        # Mined negatives that meet are left out as they meet: see `MinedNegatives`.
        tokens.keys(negatives=spec.remine is None or not spec.remine.at_start),
        spec.batch_size,
        spec.seed,
        spec.epochs,
        sizes=sizes,
        weights=weights or None,
        temperature=spec.sampling_temperature,
    )
    if len(sizes) > 1:
        shares = ", ".join(
            f"{name} {count}" for name, count in zip(dataset_names(spec), batches.counts, strict=True)
        )
        context.notice(f"Batches an epoch, each of one dataset: {shares}.")
    if batches.total == 0:
        raise BadData(
            "No batch can be made: a pair without negatives, alone or among copies of itself, has nothing to "
            "be told apart from."
        )
    steps = -(-batches.total // spec.gradient_accumulation_steps)
    if spec.max_steps is not None:
        steps = spec.max_steps
    batches.limit(steps * spec.gradient_accumulation_steps)
    return batches, steps


_WORTH_COMPILING = 500
"""Updates below which compiling a model has hardly paid for itself."""


def _tell_of_compilation(spec: TrainSpec, context: RunContext, device: str, steps: int) -> None:
    if device == "cpu":
        context.notice(
            "compile: on a CPU compiled steps are not faster, and compiling takes a minute or more: leave it "
            "out.",
            "warning",
        )
    elif steps < _WORTH_COMPILING:
        context.notice(
            f"compile: the first steps compile the model for a minute or more, which {steps} steps may not "
            "make up for.",
            "warning",
        )
    if spec.padding == "auto":
        context.notice(
            "compile: texts are padded to one length (padding: fixed), so that few shapes are compiled."
        )


def _use_cache(
    spec: TrainSpec,
    shape: ModelShape,
    lengths: ChosenLengths,
    dataset: TokenTable | ChosenNegatives | MinedNegatives,
    device: str,
    precision: str,
    processes: int,
) -> bool:
    """Whether the loss goes micro-batch by micro-batch: as asked, or when the whole batch takes too much.

    A GPU is the job's own. Main memory is shared: gradient caching takes a third longer there, and a fraction
    of the memory.
    """
    if spec.loss.cached != "auto":
        return spec.loss.cached
    step = Step(lengths.query.max_length, lengths.document.max_length, dataset.documents_per_row)
    needed = training_memory(
        spec,
        shape,
        step,
        device=device,
        precision=precision,
        cached=False,
        rows=len(dataset),
        processes=processes,
    )
    # Process and weights are there already; a sharded model's weights come later.
    there = needed.process + (0 if spec.sharding == "fsdp" else needed.weights)
    return needed.total - there > _MOST_OF_FREE["cuda" if device == "cuda" else "cpu"] * free_memory(device)


_MOST_OF_FREE = {"cuda": 0.8, "cpu": 0.25}
"""Share of the free memory that a step may take without gradient caching."""


def shape_of_model(model: Any) -> ModelShape:
    """A loaded model in numbers."""
    parameters = sum(
        # In fewer bits, several share a number: the state knows how many there were.
        parameter.quant_state.shape.numel() if getattr(parameter, "quant_state", None) else parameter.numel()
        for parameter in model.parameters()
    )
    if is_static(model):
        return static_shape(parameters, model[0].embedding.weight.shape[1])
    return shape_of(transformer_of(model).config.to_dict(), parameters)
