"""The peak of resident memory against what a dry run says, on a CPU, over ways to train.

Run: ``python -m benchmarks.memory``. Writes benchmarks/reports/memory.json and memory.md. Every job is a
process of its own, on rows that fill the lengths. "base" is a BERT of twelve layers of 768.
"""

import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.report import write_report
from benchmarks.training import prepare_model

_QUERY, _DOCUMENT = 32, 256

CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("full, batch 32", "MiniLM", {"batch_size": 32}),
    ("full, batch 64", "MiniLM", {"batch_size": 64}),
    ("cached, batch 128", "MiniLM", {"batch_size": 128, "loss": {"cached": True}}),
    (
        "cached, batch 128, 8,192 tokens",
        "MiniLM",
        {"batch_size": 128, "loss": {"cached": True}, "micro_batch_tokens": 8192},
    ),
    ("bf16, batch 64", "MiniLM", {"batch_size": 64, "precision": "bf16"}),
    ("gradient checkpointing, batch 64", "MiniLM", {"batch_size": 64, "gradient_checkpointing": True}),
    ("LoRA, batch 64", "MiniLM", {"batch_size": 64, "lora": {}}),
    ("dropout 0.1, batch 32", "MiniLM, dropout", {"batch_size": 32}),
    ("full, batch 8", "base", {"batch_size": 8}),
    ("cached, batch 16", "base", {"batch_size": 16, "loss": {"cached": True}}),
    ("SGD, batch 8", "base", {"batch_size": 8, "optimizer": "sgd"}),
    ("8-bit AdamW, batch 8", "base", {"batch_size": 8, "optimizer": "adamw_8bit"}),
    ("LoRA on int8, batch 8", "base", {"batch_size": 8, "lora": {}, "quantization": "int8"}),
]

_JOB = """
import json, resource, sys
from pathlib import Path
from core.process.local import run_local
from core.runtime.reporter import RecordingReporter
result = run_local(json.loads(sys.argv[1]), Path(sys.argv[2]), RecordingReporter())
assert result.state == "succeeded", result.end_reason
print(json.dumps([result.metrics, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024]))
"""


def run(spec: dict[str, Any], out: Path) -> tuple[dict[str, Any], int]:
    """(metrics, peak resident bytes) of a job in its own process."""
    command = [sys.executable, "-c", _JOB, json.dumps(spec), str(out)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    metrics, peak = json.loads(done.stdout.splitlines()[-1])
    return metrics, peak


def make_models(folder: Path) -> dict[str, Path]:
    from transformers import BertConfig, BertModel

    models = {"MiniLM": prepare_model(folder / "minilm")}
    for name, changes in {
        "MiniLM, dropout": {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1},
        "base": {
            "hidden_size": 768,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "intermediate_size": 3072,
        },
    }.items():
        models[name] = prepare_model(folder / name.replace(", ", "-"))
        path = models[name] / "config.json"
        config = json.loads(path.read_text()) | changes
        if name == "base":
            BertModel(BertConfig(**config)).save_pretrained(models[name])
            pooling = models[name] / "1_Pooling" / "config.json"
            pooling.write_text(
                json.dumps(json.loads(pooling.read_text()) | {"word_embedding_dimension": 768})
            )
        else:
            path.write_text(json.dumps(config))
    return models


def make_rows(folder: Path) -> Path:
    """Rows that fill the lengths."""
    words = "river mountain engine garden winter bridge copper signal planet harbor".split()  # noqa: SIM905
    drawn = random.Random(0)
    rows = [
        {
            "query": f"{index} " + " ".join(drawn.choices(words, k=_QUERY)),
            "positive": f"{index} " + " ".join(drawn.choices(words, k=_DOCUMENT)),
        }
        for index in range(512)
    ]
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def main() -> None:
    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = make_models(folder)
        rows = make_rows(folder)
        for index, (title, model, fields) in enumerate(CASES):
            spec = {
                "kind": "train",
                "base_model": f"file:{models[model]}",
                "dataset": f"file:{rows}",
                "max_steps": 2,
                "lengths": {"query": _QUERY, "document": _DOCUMENT},
                "loss": {"cached": False},
                "checkpoint": {"every_steps": None, "every_seconds": None},
                "resources": {"gpus": 0},
                **fields,
            }
            metrics, _ = run({**spec, "dry_run": True}, folder / f"dry-{index}")
            predicted = metrics["estimate"]["memory"]
            _, peak = run(spec, folder / f"real-{index}")
            found.append({"case": title, "model": model, "predicted": predicted, "peak_rss_bytes": peak})
            print(
                f"{model}, {title}: {peak / 1e9:.2f} GB, said {predicted['total'] / 1e9:.2f}", file=sys.stderr
            )
    write(found)


def write(found: list[dict[str, Any]]) -> None:
    lines = [
        f"{_QUERY} tokens, documents of {_DOCUMENT}. What is said comes from `dry_run` of the same spec.",
        "",
        "| model | training | said | measured | said / measured |",
        "|---|---|---:|---:|---:|",
    ]
    for case in found:
        said, peak = case["predicted"]["total"], case["peak_rss_bytes"]
        numbers = f"{said / 1e9:.2f} GB | {peak / 1e9:.2f} GB | {said / peak:.2f}"
        lines.append(f"| {case['model']} | {case['case']} | {numbers} |")
    what = "Peak of resident memory of a training of two steps; queries of"
    write_report(
        "memory",
        {"cases": found},
        lambda where: ["# Memory: said and measured", "", f"{where}. {what}", *lines],
    )


if __name__ == "__main__":
    main()
