"""What is settled before the first step of a training: model, rows, lengths, order of batches."""

import hashlib
import itertools
import time
from collections.abc import Container
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import torch
from transformers import set_seed

from core.artifacts import sha256_of
from core.data.beir import RetrievalSet
from core.data.pairs import read_pairs
from core.data.retrieval import choose_queries, hold_out, read_retrieval
from core.data.table import open_table, write_table
from core.errors import BadData, BadSpec
from core.families import dense
from core.run.context import RunContext
from core.spec.train import DatasetSource, Prompts, TrainSpec
from core.training.adapters import choose_trainable
from core.training.arguments import choose_precision
from core.training.batching import Packing, TrainingBatches
from core.training.lengths import ChosenLengths, choose_lengths
from core.training.memory import (
    PACKING_TOKENS,
    ModelShape,
    Step,
    shape_of,
    training_memory,
)
from core.training.tokens import Frame, TokenTable, tokens_of_table

_PACKING = {
    "cpu": Packing(PACKING_TOKENS["cpu"], overhead=64),
    "cuda": Packing(PACKING_TOKENS["cuda"], multiple=8, overhead=4096),
}
"""A GPU wants lengths that eight divides; on a CPU such padding is work for nothing.

The overhead is the gradients' sum, once a micro-batch, and on a GPU the time to start its kernels.
"""


@dataclass
class Prepared:
    """Everything that is settled before the first step."""

    model: Any
    base_model_sha256: str
    trainable: int
    parameters: int
    tokens: TokenTable
    frame: Frame
    rows_sha256: str
    rejects: int
    lengths: ChosenLengths
    batches: TrainingBatches
    evaluation_sets: dict[str, RetrievalSet]
    device: str
    precision: str
    packing: Packing
    cached: bool
    steps: int
    shape: ModelShape  # before anything was added to the model
    guide: Any = None  # a second model, which is not trained


def prepare(spec: TrainSpec, context: RunContext) -> Prepared:
    """The model, the rows as a table on disk, the lengths, the order of batches, the evaluation sets."""
    device = "cuda" if context.request.gpus else "cpu"
    precision = choose_precision(spec.precision, device)
    set_seed(spec.seed)
    context.phase("loading")
    model = dense.load_model(context, spec.base_model, device, spec.quantization)
    base_model_sha256 = dense.weights_sha256(model)
    shape = shape_of_model(model)
    trainable, parameters = choose_trainable(spec, model, model[0].auto_model)
    if trainable < parameters:
        context.notice(
            f"{trainable:,} of {parameters:,} parameters are trained ({trainable / parameters:.2%})."
        )
    context.check_stop()
    guide = None
    if spec.loss.guide is not None:
        guide = dense.load_model(context, spec.loss.guide.model, device).eval().requires_grad_(False)
    if spec.matryoshka and max(spec.matryoshka.dimensions) >= (model.get_sentence_embedding_dimension() or 0):
        raise BadSpec(
            f"matryoshka.dimensions go up to {max(spec.matryoshka.dimensions)}; the model's embeddings have "
            f"{model.get_sentence_embedding_dimension()}: each must be smaller"
        )

    context.phase("preparing")
    work = context.folder / "work"
    work.mkdir(exist_ok=True)
    tables, rejects = _read_datasets(spec, context, work)
    evaluation_sets = _evaluation_sets(spec, context)
    if spec.evaluation.holdout is not None:
        taken = choose_queries(tables, spec.evaluation.holdout, spec.seed)
        for index, name in enumerate(dataset_names(spec)):
            tables[index], held_out = hold_out(tables[index], taken)
            if not held_out.queries:
                context.notice(f"{name}: none of its queries is kept out of training.", "warning")
                continue
            evaluation_sets[_free_name(f"{name}-holdout", evaluation_sets)] = held_out
            context.notice(
                f"{name}: {len(held_out.queries)} queries are kept out of training, to evaluate on."
            )
    table = pa.concat_tables(tables)
    rows_sha256 = _rows_sha256(spec, work, len(tables))
    frame = Frame.of(model.tokenizer)
    tokens = _tokenize(spec, context, table, rows_sha256, model, guide)
    if spec.loss.needs_scores and (without := tokens.rows_without_scores):
        raise BadData(
            f"loss {spec.loss.name} learns a teacher's scores of a positive and its negatives; {without} of "
            f"{len(tokens)} rows have none (columns: scores, or pos_scores and neg_scores)"
        )
    context_length = dense.context_length(model)
    lengths = choose_lengths(
        spec.lengths,
        tokens.counts(),
        specials=frame.specials,
        configured=min(model.max_seq_length or context_length, context_length),
        context=context_length,
    )
    context.notice(
        f"Lengths: queries {lengths.query.max_length} tokens ({lengths.query.share_cut:.1%} cut), documents "
        f"{lengths.document.max_length} ({lengths.document.share_cut:.1%} cut)."
    )
    longest = max(lengths.document.max_length, lengths.query.max_length)
    # What was trained on is what is evaluated and saved.
    model.max_seq_length = min(context_length, max(model.max_seq_length or 0, longest))
    batches, steps = _plan_batches(spec, context, [part.num_rows for part in tables], tokens)
    packing = replace(_PACKING[device], longest=context_length)
    if spec.micro_batch_tokens != "auto":
        packing = replace(packing, token_budget=spec.micro_batch_tokens)
    if spec.padding == "fixed":
        packing = replace(packing, width=longest)
    cached = _use_cache(spec, shape, lengths, tokens, device, precision)
    if cached and spec.loss.cached == "auto":
        context.notice(
            "The batch does not fit in memory: its loss is computed in micro-batches (gradient caching)."
        )
    return Prepared(
        model=model,
        base_model_sha256=base_model_sha256,
        trainable=trainable,
        parameters=parameters,
        tokens=tokens,
        frame=frame,
        rows_sha256=rows_sha256,
        rejects=rejects,
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
    )


def _plan_batches(
    spec: TrainSpec, context: RunContext, sizes: list[int], tokens: TokenTable
) -> tuple[TrainingBatches, int]:
    """The order of all batches, and how many updates they make. ``sizes`` are rows of each dataset."""
    weights = [source.weight for source in spec.datasets if source.weight is not None]
    batches = TrainingBatches(
        tokens.keys(),
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


def dataset_names(spec: TrainSpec) -> list[str]:
    """What reports call the training sets."""
    return [source.name or source.ref.rpartition("/")[2].split(".")[0] for source in spec.datasets]


def _read_datasets(spec: TrainSpec, context: RunContext, work: Path) -> tuple[list[pa.Table], int]:
    """Every dataset's rows, memory-mapped, and how many rows of all could not be used."""
    tables, rejected = [], 0
    for index, source in enumerate(spec.datasets):
        rejects = write_table(
            read_pairs(_path(context, source), source.split),
            work / f"rows-{index}.arrow",
            work / f"rejects-{index}.jsonl",
            spec.max_reject_share,
            context.check_stop,
        )
        if rejects.count:
            first = rejects.examples[0]
            context.notice(
                f"{rejects.count} rows cannot be used and were left out; the first: {first.file}, line "
                f"{first.line}: {first.reason}. All of them are in the report's rejects.jsonl.",
                "warning",
            )
            with (work / "rejects.jsonl").open("ab") as all_of_them:
                all_of_them.write((work / f"rejects-{index}.jsonl").read_bytes())
        rejected += rejects.count
        table = open_table(work / f"rows-{index}.arrow")
        if spec.sample is not None and spec.sample < table.num_rows:
            generator = torch.Generator().manual_seed(spec.seed)
            chosen = torch.randperm(table.num_rows, generator=generator)[: spec.sample].sort().values
            table = table.take(chosen.numpy())
        tables.append(table)
    return tables, rejected


def _rows_sha256(spec: TrainSpec, work: Path, count: int) -> str:
    """Of all rows that are trained on."""
    sums = [sha256_of(work / f"rows-{index}.arrow") for index in range(count)]
    if spec.sample is not None or spec.evaluation.holdout is not None:
        sums.append(f"{spec.sample} sampled, {spec.evaluation.holdout} held out, with {spec.seed}")
    return sums[0] if len(sums) == 1 else hashlib.sha256(" ".join(sums).encode()).hexdigest()


def _tokenize(
    spec: TrainSpec, context: RunContext, table: pa.Table, rows_sha256: str, model: Any, guide: Any
) -> TokenTable:
    """The rows in token ids, and for the guide in its own."""

    def of(encoder: Any, prompts: Prompts) -> tuple[Path, bool]:
        return tokens_of_table(
            table,
            rows_sha256,
            encoder.tokenizer,
            prompts,
            context=dense.context_length(encoder),
            cache=context.request.cache,
            check_stop=context.check_stop,
        )

    begun = time.monotonic()
    for_guide = TokenTable(of(guide, Prompts())[0]) if guide is not None else None
    folder, known = of(model, spec.prompts)
    tokens = TokenTable(folder, for_guide)
    if known:
        context.notice("The tokens of an earlier job on the same rows are used again.")
    else:
        context.notice(f"{len(tokens)} rows tokenized in {time.monotonic() - begun:.1f} s.")
    return tokens


def _evaluation_sets(spec: TrainSpec, context: RunContext) -> dict[str, RetrievalSet]:
    sets: dict[str, RetrievalSet] = {}
    for source in spec.evaluation.datasets:
        path = _path(context, source)
        name = source.name or path.name.split(".")[0]
        name = _free_name(name, sets)
        sets[name] = read_retrieval(path, source.split, spec.max_reject_share)
        if sets[name].rejects:
            context.notice(f"{name}: {sets[name].rejects} rows cannot be used and were left out.", "warning")
        context.check_stop()
    return sets


def _free_name(name: str, taken: Container[str]) -> str:
    return next(
        candidate
        for number in itertools.count(1)
        if (candidate := name if number == 1 else f"{name}-{number}") not in taken
    )


def _path(context: RunContext, source: DatasetSource) -> Path:
    path = context.resolve(source.ref)
    if not isinstance(path, Path):
        raise BadSpec(f"{source.ref} is not a dataset in files")
    if not path.exists():
        raise BadData(f"{source.ref}: there is no such file or folder")
    return path


def _use_cache(
    spec: TrainSpec,
    shape: ModelShape,
    lengths: ChosenLengths,
    tokens: TokenTable,
    device: str,
    precision: str,
) -> bool:
    """Whether the loss goes micro-batch by micro-batch: as asked, or when the whole batch would not fit."""
    if spec.loss.cached != "auto":
        return spec.loss.cached
    step = Step(lengths.query.max_length, lengths.document.max_length, tokens.documents_per_row)
    needed = training_memory(
        spec, shape, step, device=device, precision=precision, cached=False, rows=len(tokens)
    )
    free = torch.cuda.mem_get_info()[0] if device == "cuda" else psutil.virtual_memory().available
    return needed.total - needed.process - needed.weights > 0.8 * free  # those two are there already


def shape_of_model(model: Any) -> ModelShape:
    """A loaded model in numbers."""
    parameters = sum(
        # In fewer bits, several share a number: the state knows how many there were.
        parameter.quant_state.shape.numel() if getattr(parameter, "quant_state", None) else parameter.numel()
        for parameter in model.parameters()
    )
    return shape_of(model[0].auto_model.config.to_dict(), parameters)
