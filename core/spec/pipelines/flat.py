"""The flat form of earlier training scripts: one list of settings, which becomes a pipeline.

It is recognised by the names of its fields. Its fields keep their meaning: rows are sampled and
split, the base model is measured, negatives are mined on the CPU, the model is trained and measured again.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, model_validator

from core.spec.job import Labels
from core.spec.parts.base import Strict
from core.spec.parts.options import Sampling, Seed
from core.spec.parts.refs import has_scheme
from core.spec.pipelines.recipe_facts import Expanded

_RECOGNISED = {"dataset_name", "model_name", "mining_model_name"}
"""Of these names no other form has any."""

_Path = Annotated[str, Field(min_length=1, max_length=4096)]
_Count = Annotated[int, Field(ge=1, le=10**9)]


def is_flat(data: object) -> bool:
    """Whether somebody has written the flat form."""
    if not isinstance(data, Mapping) or {"kind", "stages", "recipe"} & set(data):
        return False
    return bool(set(data) & _RECOGNISED)


class FlatMining(Strict):
    """Hard negatives. ``margin``: a negative scores at least so much below its positive."""

    num_negatives: int = Field(1, ge=1, le=1000)
    batch_size: int | None = Field(None, ge=1, le=65_536)
    margin: float = Field(0.0, ge=0, le=1e9)
    range_min: int = Field(0, ge=0, le=1_000_000)
    range_max: int = Field(100, ge=1, le=1_000_000)
    sampling_strategy: Sampling = "top"


class FlatTraining(Strict):
    """How the training runs. ``warmup_ratio`` here is the one that counts, if both are given."""

    gradient_checkpointing: bool = False
    fp16: bool = False
    bf16: bool = False
    eval_steps: _Count | None = None
    save_steps: _Count | None = None
    logging_steps: _Count | None = None
    warmup_ratio: float | None = Field(None, ge=0, le=1)

    @model_validator(mode="after")
    def _one_precision(self) -> "FlatTraining":
        if self.fp16 and self.bf16:
            raise ValueError("fp16 and bf16 exclude each other")
        return self


class FlatSpec(Strict):
    """A training with mined negatives, as one list of settings."""

    dataset_name: _Path = Field(description="A reference, a path, or the name of a hub's dataset (ORG/NAME).")
    sample_size: _Count | None = Field(None, description="Rows that are used, drawn with the seed.")
    test_size: Annotated[float, Field(gt=0, lt=1)] | _Count = Field(
        0.1, description="Share of the rows that are tested on, or their number."
    )
    seed: Seed = 42
    model_name: _Path
    mining_model_name: _Path | None = Field(None, description="Default: model_name.")
    num_epochs: float = Field(1, gt=0, le=10_000)
    batch_size: int = Field(64, ge=2, le=65_536)
    learning_rate: float = Field(5e-5, gt=0, le=10)
    weight_decay: float = Field(0.01, ge=0, le=10)
    warmup_ratio: float = Field(0.1, ge=0, le=1)
    labels: Labels = Field(default_factory=dict, description="Labels of the pipeline and of all its jobs.")
    cache_dir: str | None = Field(None, description="Has no effect: the service has its own caches.")
    mining: FlatMining = Field(default_factory=FlatMining)
    training: FlatTraining = Field(default_factory=FlatTraining)

    @model_validator(mode="after")
    def _sizes(self) -> "FlatSpec":
        if self.test_size >= 1 and self.sample_size is None:
            raise ValueError("test_size is a number of rows: give sample_size too, or a share below 1")
        if self.test_size >= 1 and self.sample_size is not None and self.test_size >= self.sample_size:
            raise ValueError("test_size must be below sample_size")
        return self


def expand_flat(flat: FlatSpec) -> Expanded:
    """The stages, and what is worth saying about them."""
    made = Expanded()
    base, miner = _model(flat.model_name), _model(flat.mining_model_name or flat.model_name)
    share = flat.test_size
    if share >= 1 and flat.sample_size is not None:
        share = made.choose(
            "prepare", "split.test", round(share / flat.sample_size, 6), f"test_size is {share:g} rows."
        )
    test = {"ref": "stage:prepare/dataset", "split": "test", "name": "test"}
    made.stages["prepare"] = {
        "kind": "prepare",
        "source": _dataset(flat.dataset_name),
        "task": "retrieval",
        "split": {"test": share},
        "seed": flat.seed,
        **_given(sample=flat.sample_size),
    }
    made.choose(
        "prepare",
        "split.by",
        "text",
        "Rows that share a text, or nearly share it, are in one split: no leak.",
    )
    common = {"kind": "evaluate", "datasets": [test], "seed": flat.seed}
    model = {"ref": base, "name": "base"}
    made.stages["baseline"] = {**common, "models": [model]}
    mining = flat.mining
    made.stages["mine"] = {
        "kind": "mine",
        "model": miner,
        "dataset": {"ref": "stage:prepare/dataset", "split": "train"},
        "num_negatives": mining.num_negatives,
        "sampling": mining.sampling_strategy,
        "filters": {
            "absolute_margin": mining.margin,
            "positive_aware": None,
            "range_min": mining.range_min,
            "range_max": mining.range_max,
        },
        "resources": {"gpus": 0},
        "seed": flat.seed,
        **_given(batch_size=mining.batch_size),
    }
    training = flat.training
    warmup = flat.warmup_ratio if training.warmup_ratio is None else training.warmup_ratio
    precision = "fp16" if training.fp16 else "bf16" if training.bf16 else "fp32"
    made.stages["train"] = {
        "kind": "train",
        "base_model": base,
        "dataset": "stage:mine/dataset",
        "epochs": flat.num_epochs,
        "batch_size": flat.batch_size,
        "learning_rate": flat.learning_rate,
        "weight_decay": flat.weight_decay,
        "warmup_ratio": warmup,
        "gradient_checkpointing": training.gradient_checkpointing,
        "precision": precision,
        "evaluation": {"datasets": [test], **_given(every_steps=training.eval_steps)},
        "seed": flat.seed,
        **_given(logging_steps=training.logging_steps),
        **({"checkpoint": {"every_steps": training.save_steps}} if training.save_steps else {}),
    }
    made.stages["compare"] = {
        **common,
        "models": [{"ref": "stage:train/model", "name": "trained"}, model],
        "publish_best": True,
    }
    if flat.cache_dir is not None:
        made.choose("prepare", "cache_dir", flat.cache_dir, "Has no effect: the service has its own caches.")
    return made


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _dataset(name: str) -> str:
    """A reference as it is; a path as file:, ORG/NAME as a hub's dataset."""
    if has_scheme(name):
        return name
    return f"file:{name}" if _is_path(name) or name.lower().endswith(_DATA_ENDINGS) else f"hf:{name}"


def _model(name: str) -> str:
    return f"file:{name}" if _is_path(name) and not has_scheme(name) else name


_ROWS = (".jsonl", ".json", ".ndjson", ".csv", ".tsv", ".parquet", ".arrow", ".xlsx", ".xlsm")
_DATA_ENDINGS = (*_ROWS, ".md", ".rst", ".txt", ".gz", ".zst", ".tgz", ".zip", ".tar")


def _is_path(name: str) -> bool:
    """Whether a name is a path, and no ORG/NAME. A dot says nothing: models are named ORG/NAME-v1.5."""
    return name.startswith(("/", "./", "../", "~")) or name.count("/") != 1
