"""The arms of the training benchmark: each family by its own library's trainer, and by us.

All train the given rows in the given order, batch after batch, and return [(moment, loss)] of every step.
"""

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Steps = list[tuple[float, float]]


@dataclass(frozen=True)
class Data:
    """What is trained on, and how."""

    title: str
    batch_size: int
    steps: int
    length: int
    negatives: int = 0


class Counter:
    """Counts what goes through the transformer, padding and all, once a text and step."""

    def __init__(self) -> None:
        self.computed = self.real = 0

    def __call__(self, _module: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        import torch

        if torch.is_grad_enabled():
            told = arguments[0] if arguments and isinstance(arguments[0], dict) else options
            mask = told["attention_mask"]
            self.computed += mask.numel()
            self.real += int(mask.sum())

    def watch(self, module: Any) -> None:
        module.register_forward_pre_hook(self, with_kwargs=True)


def train_theirs(
    trainer_class: Any,
    arguments_class: Any,
    model: Any,
    loss: Any,
    columns: list[Row],
    batch_size: int,
    data: Data,
    device: str,
    *,
    bf16: bool,
    **options: Any,
) -> Steps:
    """The stock trainer, on the rows in their order."""
    from datasets import Dataset
    from torch.utils.data import BatchSampler, SequentialSampler
    from transformers import TrainerCallback

    found: Steps = []

    class Log(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **_):
            if "loss" in logs:
                found.append((time.perf_counter(), float(logs["loss"])))

    class InOrder(trainer_class):
        def get_batch_sampler(self, dataset, batch_size, drop_last, **_):
            return BatchSampler(SequentialSampler(dataset), batch_size, drop_last)

    with tempfile.TemporaryDirectory() as folder:
        arguments = arguments_class(
            folder,
            max_steps=data.steps,
            per_device_train_batch_size=batch_size,
            learning_rate=2e-5,
            warmup_steps=0,
            weight_decay=0.01,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            bf16=bf16,
            use_cpu=device == "cpu",
        )
        InOrder(
            model,
            arguments,
            train_dataset=Dataset.from_list(columns),
            loss=loss,
            callbacks=[Log()],
            **options,
        ).train()
    return found


def dense(
    model: Path,
    rows: list[Row],
    data: Data,
    counter: Counter,
    device: str = "cpu",
    *,
    cached: bool = False,
    bf16: bool = False,
) -> Steps:
    """sentence-transformers."""
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.losses import CachedMultipleNegativesRankingLoss, MultipleNegativesRankingLoss

    bi_encoder = SentenceTransformer(str(model), device=device, model_kwargs={"torch_dtype": "float32"})
    bi_encoder.max_seq_length = data.length
    counter.watch(bi_encoder[0])
    loss = (
        CachedMultipleNegativesRankingLoss(bi_encoder, scale=20.0, mini_batch_size=16)
        if cached
        else MultipleNegativesRankingLoss(bi_encoder, scale=20.0)
    )
    return train_theirs(
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
        bi_encoder,
        loss,
        [{"query": row["query"], "positive": row["positive"]} for row in rows],
        data.batch_size,
        data,
        device,
        bf16=bf16,
    )


def late_interaction(
    model: Path,
    rows: list[Row],
    data: Data,
    counter: Counter,
    device: str = "cpu",
    *,
    cached: bool = False,
    bf16: bool = False,
) -> Steps:
    """PyLate."""
    from pylate.losses import CachedContrastive, Contrastive
    from pylate.models import ColBERT
    from pylate.utils import ColBERTCollator
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments

    colbert = ColBERT(str(model), device=device, document_length=data.length, query_length=32)
    counter.watch(colbert[0])
    loss = CachedContrastive(colbert, mini_batch_size=16) if cached else Contrastive(colbert)
    return train_theirs(
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
        colbert,
        loss,
        [{"query": row["query"], "positive": row["positive"]} for row in rows],
        data.batch_size,
        data,
        device,
        bf16=bf16,
        data_collator=ColBERTCollator(colbert.tokenize),
    )


def cross_encoder(
    model: Path,
    rows: list[Row],
    data: Data,
    counter: Counter,
    device: str = "cpu",
    *,
    cached: bool = False,
    bf16: bool = False,
) -> Steps:
    """sentence-transformers: binary cross entropy of the positive and of each negative."""
    from sentence_transformers import CrossEncoder
    from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss

    reranker = CrossEncoder(
        str(model), device=device, max_length=data.length, model_kwargs={"torch_dtype": "float32"}
    )
    counter.watch(reranker.model.base_model)
    columns = [
        {"query": row["query"], "document": text, "label": float(text is row["positive"])}
        for row in rows
        for text in (row["positive"], *row["negatives"])
    ]
    return train_theirs(
        CrossEncoderTrainer,
        CrossEncoderTrainingArguments,
        reranker,
        BinaryCrossEntropyLoss(reranker),
        columns,
        data.batch_size * (1 + data.negatives),
        data,
        device,
        bf16=bf16,
    )


THEIRS: dict[str, Callable[..., Steps]] = {
    "dense": dense,
    "late_interaction": late_interaction,
    "cross_encoder": cross_encoder,
}


def ours(
    family: str,
    model: Path,
    rows: list[Row],
    data: Data,
    counter: Counter,
    device: str = "cpu",
    *,
    cached: bool = False,
    bf16: bool = False,
) -> Steps:
    """The same by `reason run`'s own function."""
    import core.training.prepare as prepare
    from core.engine.batching import TrainingBatches
    from core.engine.models.loading import transformer_of
    from core.families.family import family_of
    from core.jobs.events import Event, EventType
    from core.process.local import run_local
    from core.runtime.reporter import RecordingReporter

    found: Steps = []

    class Log(RecordingReporter):
        def emit(self, event: Event) -> None:
            if event.type is EventType.METRIC and "loss" in event.data.values:
                found.append((time.perf_counter(), event.data.values["loss"]))

    class InOrder(TrainingBatches):
        """The rows lie in the order of the batches already."""

        def __iter__(self) -> Any:
            for start in range(0, self.total * self.batch_size, self.batch_size):
                yield list(range(start, start + self.batch_size))

    package: Any = family_of(family)
    load = package.load_for_training

    def hooked(*arguments: Any) -> Any:
        made = load(*arguments)
        counter.watch(transformer_of(made))
        return made

    package.load_for_training = hooked
    prepare.TrainingBatches = InOrder  # type: ignore[misc]
    lengths = {"query": 32, "document": data.length}
    if family == "dense":
        lengths["query"] = data.length
    if family == "cross_encoder":  # the peer cuts the pair, longest first
        lengths = {"query": data.length // 2, "document": data.length}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        spec = {
            "kind": "train",
            "family": family,
            "base_model": f"file:{model}",
            "dataset": f"file:{folder / 'rows.jsonl'}",
            "batch_size": data.batch_size,
            "max_steps": data.steps,
            "learning_rate": 2e-5,
            "warmup_ratio": 0,
            "lengths": lengths,
            "precision": "bf16" if bf16 else "fp32",
            "loss": {"cached": cached, **({"temperature": 0.05} if family == "dense" else {})},
            "logging_steps": 1,
            "checkpoint": {"every_steps": None, "every_seconds": None},
            "resources": {"gpus": int(device != "cpu")},
        }
        result = run_local(spec, folder / "out", Log())
        assert result.state == "succeeded", result.end_reason
    return found
