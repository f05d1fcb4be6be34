"""Negatives that are mined once, before the first step, by a model of its own: ``train.mine``.

What is mined lies beside the checkpoints, so that whoever goes on trains on the same rows; embeddings are
kept in the cache, for every job on the same texts.
"""

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from core.artifacts import fresh_folder, sha256_of
from core.artifacts.cache import key_of
from core.artifacts.folders import write_atomically
from core.data.rows.kept_reading import kept_reading
from core.data.rows.row import Reject
from core.data.sources.corpus import has_corpus, read_corpus
from core.data.training_rows.page import DatasetPage, read_page
from core.data.training_rows.pairs import Reading, read_pairs
from core.families.prompts import with_own_prompts
from core.runtime.context import RunContext
from core.runtime.devices import release_memory
from core.spec.job import JobSpec
from core.spec.mine import MineFirst, MineSpec
from core.spec.parts.training import TrainingSource
from core.spec.train import TrainSpec
from core.training.checkpoints.checkpoint import link
from core.training.negatives.mined_dataset import mined_folder

_COUNTING = {".safetensors", ".json", ".txt", ".model"}
"""Weights, configurations, vocabularies; not a README."""

_IRRELEVANT = {
    *JobSpec.model_fields,
    "dataset",
    "corpus",
    "model",
    "batch_size",
    "block_mb",
    "max_reject_share",
}
"""Fields of a mine spec that change nothing of what is mined, or that count by their content."""


class WrittenRows(Protocol):
    """Folders: a prepared dataset of rows with negatives, and the report on them."""

    @property
    def dataset(self) -> Path: ...

    @property
    def report(self) -> Path: ...


class MineRows(Protocol):
    """Mining, which is handed in: see `core.mining.mine_rows.mine_rows`."""

    def __call__(self, spec: MineSpec, context: RunContext, work: Path) -> WrittenRows: ...


@dataclass(frozen=True)
class MinedFirst:
    """A dataset with mined negatives in place of one of the spec's."""

    folder: Path  # a prepared dataset: its split train
    key: str  # of what was mined, by what, and how
    page: DatasetPage


def mine_first(spec: TrainSpec, context: RunContext, mine_rows: MineRows) -> list[MinedFirst]:
    """Every dataset of a training with negatives, in the order of the spec. Empty where none are asked for.

    Raises `Stopped`, `BadData`, `BadModel` or `BadSpec`.
    """
    if spec.mine is None:
        return []
    asked = spec.mine
    found = []
    on = context if asked.device == "auto" else context.on(asked.device)
    for index, source in enumerate(spec.datasets):
        mining: Any = with_own_prompts(_mine_spec(spec, asked, source), on)
        key = _key(mining, on)
        kept = mined_folder(context) / f"first-{index}"
        folder = fresh_folder(context.folder / "work" / f"first-{index}")
        if not _take(kept, folder, key):
            # Whether it is found or mined anew, the training draws the same numbers.
            with torch.random.fork_rng():
                written = mine_rows(mining, on, fresh_folder(context.folder / "work" / "mining"))
            _keep(written.dataset, kept, key)
            report = context.folder / "work" / f"mining-report-{index}"
            shutil.rmtree(report, ignore_errors=True)
            shutil.move(written.report, report)
            shutil.rmtree(context.folder / "work" / "mining")
            release_memory()
            _take(kept, folder, key)
        else:
            context.notice(f"{source.ref}: the negatives that were mined before are used again.")
        page = read_page(folder)
        assert page.mining is not None
        by_count = {int(count): rows for count, rows in (page.rows_by_negatives or {}).items()}
        rows = sum(by_count.values())
        mean = sum(count * rows for count, rows in by_count.items()) / max(1, rows)
        context.notice(
            f"{source.ref}: mined with {page.mining.model}: {mean:.2f} negatives a row; "
            f"{by_count.get(0, 0)} of {rows} rows have none."
        )
        found.append(MinedFirst(folder, key, page))
    context.phase("preparing")
    return found


def _mine_spec(spec: TrainSpec, asked: MineFirst, source: TrainingSource) -> MineSpec:
    options = {name: getattr(asked, name) for name in MineFirst.model_fields if name != "device"}
    dataset = {
        name: value for name, value in source if name in ("ref", "split", "columns", "encoding", "labels")
    }
    return MineSpec(
        kind="mine", dataset=dataset, seed=spec.seed, max_reject_share=spec.max_reject_share, **options
    )


def _key(mining: MineSpec, context: RunContext) -> str:
    """A hash of everything that what is mined follows from: rows, corpora, models, settings."""
    source = context.dataset_path(mining.dataset.ref)
    rows, corpora = hashlib.sha256(), hashlib.sha256()
    for row in read_pairs(source, reading=Reading.of(mining.dataset, mining.dataset.split)):
        if not isinstance(row, Reject):
            rows.update(repr(vars(row)).encode())
            context.check_stop()
    own = {mining.dataset.ref: mining.dataset.split} if has_corpus(source) else {}
    for reference, split in (dict.fromkeys(mining.corpora) or own).items():
        reading = kept_reading(reference, context.place_of(reference), split, lambda _: None)
        for document in read_corpus(context.dataset_path(reference), split, reading):
            if not isinstance(document, Reject):
                corpora.update(repr(vars(document)).encode())
                context.check_stop()
    models = [
        _files(context.model_path(reference))
        for name, reference in mining.mining_references().items()
        if name.endswith("model")
    ]
    settings = mining.model_dump(mode="json", exclude=_IRRELEVANT)
    if isinstance(check := settings["filters"]["cross_encoder"], dict):
        check.pop("model")
    settings["lexical"] = mining.model == "bm25"
    return key_of([rows.hexdigest(), corpora.hexdigest(), models, settings])


def _files(folder: Path) -> dict[str, str]:
    """The sha256 of each file of a model that decides what it computes."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix in _COUNTING)
    return {str(path.relative_to(folder)): sha256_of(path) for path in paths}


def _keep(dataset: Path, kept: Path, key: str) -> None:
    """Beside the checkpoints: files, which are linked into each of them. The last names the others."""
    shutil.move(dataset / "train.parquet", kept.with_suffix(".parquet"))
    kept_page = {"key": key, "facts": read_page(dataset).as_dict()}
    write_atomically(kept.with_suffix(".json"), json.dumps(kept_page))


def _take(kept: Path, folder: Path, key: str) -> bool:
    """What was kept as a prepared dataset in ``folder``. False where it was mined of something else."""
    try:
        page = json.loads(kept.with_suffix(".json").read_bytes())
    except FileNotFoundError:
        return False
    if page["key"] != key:
        return False
    link(kept.with_suffix(".parquet"), folder / "train.parquet")
    DatasetPage.model_validate(page["facts"]).write(folder)
    return True
