"""What a training reads: its datasets as one table, then as tokens, and the sets to evaluate on."""

import hashlib
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from core.artifacts import sha256_of
from core.data.retrieval_sets.judgments import RetrievalSet
from core.data.rows.reading import TEXT_ROLES, Reading
from core.data.sources.judged import read_judged_source, tell_remarks
from core.data.sources.retrieval import choose_queries, hold_out
from core.data.training_rows.page import read_page
from core.data.training_rows.pairs import is_dataset, read_pairs
from core.data.training_rows.table import open_table, write_table
from core.engine.models.identity import Identity
from core.engine.models.loading import context_length
from core.engine.token_table import TokenTable, tokens_of_table
from core.errors import BadData
from core.families.prompts import prompts_of
from core.runtime.context import RunContext
from core.spec.parts.models import Prompts
from core.spec.parts.refs import free_name, short_name
from core.spec.train import TrainSpec
from core.training.negatives.mining_first import MinedFirst, MineRows, mine_first
from core.training.pruning import prune_documents


@dataclass(frozen=True)
class Rows:
    """Where the rows lie and what is known of them: small enough to be told to other processes."""

    tokens: Path
    guide_tokens: Path | None
    sizes: list[int]  # rows of each dataset
    sha256: str
    rejects: int
    evaluated: bool  # whether there is anything to evaluate on
    licences: list[str]  # of the datasets that say
    pruned: tuple[int, int] | None = None  # tokens of the documents, before and after
    mined: list[MinedFirst] = field(default_factory=list)  # of each dataset, where the spec mines first

    def open(self) -> TokenTable:
        guide = TokenTable(self.guide_tokens) if self.guide_tokens is not None else None
        return TokenTable(self.tokens, guide)


def read_rows(
    spec: TrainSpec, context: RunContext, model: Any, guide: Any, mine_rows: MineRows
) -> tuple[Rows, dict[str, RetrievalSet]]:
    """All rows that are trained on, in the model's tokens, and the evaluation sets by name.

    ``mine_rows`` mines a dataset first, where the spec asks for it.

    Raises `BadData` and `BadSpec`.
    """
    work = context.folder / "work"
    work.mkdir(exist_ok=True)
    mined = mine_first(spec, context, mine_rows)
    tables, rejects = _read_datasets(spec, context, work, mined)
    evaluation_sets = _evaluation_sets(spec, context)
    if spec.evaluation.holdout is not None:
        taken = choose_queries(tables, spec.evaluation.holdout, spec.seed)
        for index, name in enumerate(dataset_names(spec)):
            tables[index], held_out = hold_out(tables[index], taken)
            if not held_out.queries:
                context.notice(f"{name}: none of its queries is kept out of training.", "warning")
                continue
            evaluation_sets[free_name(f"{name}-holdout", evaluation_sets)] = held_out
            context.notice(
                f"{name}: {len(held_out.queries)} queries are kept out of training, to evaluate on."
            )
    sha256 = _rows_sha256(spec, work, len(tables))
    tokens, guide_tokens = _tokenize(spec, context, pa.concat_tables(tables), sha256, model, guide)
    pruned = None
    if spec.prune_tokens is not None:
        tokens, pruned = _prune(spec, context, tokens, model)
    sizes = [table.num_rows for table in tables]
    licences = _licences(spec, context)
    rows = Rows(tokens, guide_tokens, sizes, sha256, rejects, bool(evaluation_sets), licences, pruned, mined)
    if spec.loss.learns_pair_scores:
        _check_pair_scores(spec, rows)
    elif spec.loss.needs_scores and (without := rows.open().rows_without_scores):
        raise BadData(
            f"loss {spec.loss.name} learns a teacher's scores of a positive and its negatives; {without} of "
            f"{sum(sizes)} rows have none (columns: scores, or pos_scores and neg_scores)"
        )
    if spec.loss.needs_scores and not spec.loss.learns_pair_scores and not mined:
        _tell_teachers(spec, context)
    elif spec.family == "cross_encoder" and not spec.loss.needs_scores and spec.loss.in_batch_negatives == 0:
        _, _, starts = rows.open().numbers()
        if alone := int((np.diff(starts) == 1).sum()):
            raise BadData(
                f"{alone} of {sum(sizes)} rows have no negatives, and loss.in_batch_negatives is 0: there is "
                "nothing that their positives could be told apart from"
            )
    return rows, evaluation_sets


def _check_pair_scores(spec: TrainSpec, rows: Rows) -> None:
    """Raises `BadData` for rows without a score, scores that are all equal, or out of the loss's range."""
    table = rows.open()
    if without := table.rows_without_scores:
        raise BadData(
            f"loss {spec.loss.name} learns the score beside each pair; {without} of {sum(rows.sizes)} rows "
            "have none (a column label, score or similarity; labels.column names another)"
        )
    scores = np.asarray(table.all_scores)
    least, most = float(scores.min()), float(scores.max())
    if least == most:
        raise BadData(f"loss {spec.loss.name}: every score is {least:g}, so there is nothing to learn")
    lowest = 0.0 if spec.family == "cross_encoder" else -1.0
    if spec.loss.name == "regression" and not lowest <= least <= most <= 1.0:
        raise BadData(
            f"loss regression learns scores from {lowest:g} to 1, and these are from {least:g} to {most:g}. "
            f"Divide them: `labels: {{divide_by: {max(abs(least), abs(most)):g}}}`; or use cosent, which "
            "learns their order"
        )


def _prune(spec: TrainSpec, context: RunContext, tokens: Path, model: Any) -> tuple[Path, tuple[int, int]]:
    """The folder of the shorter documents, and how many tokens they had and have."""
    assert spec.prune_tokens is not None
    context.phase("pruning")
    pruned = prune_documents(
        TokenTable(tokens),
        spec.prune_tokens,
        model,
        f"{tokens.name} {Identity.of(model).key()}",
        context.request.cache,
        context.check_stop,
    )
    context.notice(
        f"Documents have {pruned.after:,} of their {pruned.before:,} tokens left "
        f"({pruned.after / max(1, pruned.before):.1%})."
    )
    context.phase("preparing")
    return pruned.folder, (pruned.before, pruned.after)


def _tell_teachers(spec: TrainSpec, context: RunContext) -> None:
    """Mined rows have scores whether or not anybody meant them to teach."""
    for source in spec.datasets:
        path = context.dataset_path(source.ref)
        mining = read_page(path).mining if is_dataset(path) else None
        if mining is not None and not mining.has_teacher:
            context.notice(
                f"{source.ref}: the scores that are learned are those of the mining by {mining.model}; a "
                "cross-encoder's come with filters.cross_encoder.keep_scores.",
                "warning",
            )


def _licences(spec: TrainSpec, context: RunContext) -> list[str]:
    """Of the prepared datasets that are trained on: whatever is made from them carries these."""
    paths = [context.dataset_path(source.ref) for source in spec.datasets]
    found = [read_page(path).licence for path in paths if is_dataset(path)]
    return list(dict.fromkeys(licence for licence in found if licence))


def dataset_names(spec: TrainSpec) -> list[str]:
    """What reports call the training sets."""
    return [source.name or source.ref.rpartition("/")[2].split(".")[0] for source in spec.datasets]


def _read_datasets(
    spec: TrainSpec, context: RunContext, work: Path, mined: list[MinedFirst]
) -> tuple[list[pa.Table], int]:
    """Every dataset's rows, memory-mapped, and how many rows of all could not be used."""
    tables, rejected = [], 0
    for index, source in enumerate(spec.datasets):
        reading = Reading.of(source, source.split, graded=spec.loss.learns_pair_scores)
        path = context.dataset_path(source.ref)
        if mined:
            path, reading = mined[index].folder, Reading("train")
            rejected += mined[index].page.unreadable or 0
        rejects = write_table(
            read_pairs(path, reading=reading),
            work / f"rows-{index}.arrow",
            work / f"rejects-{index}.jsonl",
            spec.max_reject_share,
            context.check_stop,
        )
        if rejects.count:
            context.notice(
                f"{rejects.count} rows cannot be used and were left out; the first: {rejects.examples[0]}. "
                "All of them are in the report's rejects.jsonl.",
                "warning",
            )
            with (work / "rejects.jsonl").open("ab") as all_of_them:
                all_of_them.write((work / f"rejects-{index}.jsonl").read_bytes())
        if not mined:  # else mining has told
            context.notices(reading.report.sentences(source.ref, _roles(spec)))
        rejected += rejects.count
        table = open_table(work / f"rows-{index}.arrow")
        if spec.sample is not None and spec.sample < table.num_rows:
            generator = torch.Generator().manual_seed(spec.seed)
            chosen = torch.randperm(table.num_rows, generator=generator)[: spec.sample].sort().values
            table = table.take(chosen.numpy())
        tables.append(table)
    return tables, rejected


def _roles(spec: TrainSpec) -> list[str]:
    """The roles of columns that this training uses."""
    roles = [*TEXT_ROLES]
    if spec.loss.needs_scores:
        roles.append("scores")
    if spec.curriculum is not None or (spec.resample is not None and spec.resample.max_per_difficulty):
        roles.append("difficulty")
    if spec.remine is not None and spec.remine.at_start and spec.remine.keep_own == "never":
        roles.remove("negatives")
    return roles


def _rows_sha256(spec: TrainSpec, work: Path, count: int) -> str:
    """Of all rows that are trained on."""
    sums = [sha256_of(work / f"rows-{index}.arrow") for index in range(count)]
    if spec.sample is not None or spec.evaluation.holdout is not None:
        sums.append(f"{spec.sample} sampled, {spec.evaluation.holdout} held out, with {spec.seed}")
    return sums[0] if len(sums) == 1 else hashlib.sha256(" ".join(sums).encode()).hexdigest()


def _tokenize(
    spec: TrainSpec, context: RunContext, table: pa.Table, rows_sha256: str, model: Any, guide: Any
) -> tuple[Path, Path | None]:
    """Folders of the rows in token ids, and for the guide in its own."""

    def of(encoder: Any, prompts: Prompts) -> tuple[Path, bool]:
        return tokens_of_table(
            table,
            rows_sha256,
            encoder.tokenizer,
            prompts,
            context=context_length(encoder),
            cache=context.request.cache,
            check_stop=context.check_stop,
        )

    begun = time.monotonic()
    for_guide = None
    if spec.loss.guide is not None:
        for_guide, _ = of(guide, prompts_of(spec.loss.guide.model, context))
    folder, known = of(model, spec.prompts)
    if known:
        context.notice("The tokens of an earlier job on the same rows are used again.")
    else:
        context.notice(f"{table.num_rows} rows tokenized in {time.monotonic() - begun:.1f} s.")
    return folder, for_guide


def _evaluation_sets(spec: TrainSpec, context: RunContext) -> dict[str, RetrievalSet]:
    sets: dict[str, RetrievalSet] = {}
    for source in spec.evaluation.datasets:
        path = context.dataset_path(source.ref)
        in_files = source.ref.startswith("file:")
        name = source.name or (path.name.split(".")[0] if in_files else short_name(source.ref))
        name = free_name(name, sets)
        sets[name] = read_judged_source(context, source, path, name, spec.max_reject_share)
        tell_remarks(context, name, sets[name])
        if sets[name].rejects:
            context.notice(f"{name}: {sets[name].rejects} rows cannot be used and were left out.", "warning")
        context.check_stop()
    return sets
