"""What only a GPU can show: every path of training that touches one, checked and measured in one call.

Run: ``python -m benchmarks.gpu.run`` (``--cpu`` tries the script itself, small, where there is no GPU, and
writes nothing; ``--only NAME`` runs cases whose names hold it). Writes benchmarks/reports/gpu.json and
gpu.md; exits with 1 when a check fails.

Each case is a job of its own in a process of its own, on pairs from Python's standard library and a BERT as
wide and deep as all-MiniLM-L6-v2 with random weights and no dropout, so that nothing need be downloaded and
all precisions can be compared with float32. A case passes when its job succeeds, its losses are numbers and
fall, its first loss is that of float32 within the tolerance, and the path that it is about was taken.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.report import write_report

_STEPS = 12
_LENGTH = 128
_REMINE = {"every_epochs": 0.1, "num_negatives": 2, "filters": {"positive_aware": None}}


@dataclass(frozen=True)
class Case:
    """A training and what must be true of it."""

    about: str
    fields: dict[str, Any] = field(default_factory=dict)
    tolerance: float = 1e-3  # of the first loss, relative to that of the case that it is like
    like: str = "fp32"
    needs_gpus: int = 0  # left out with a word where there are fewer
    taken: Callable[[dict[str, Any]], bool] = lambda _: True  # of what the job told
    memory_fraction: float | None = None  # of the GPU, that the job may have


def _told(words: str) -> Callable[[dict[str, Any]], bool]:
    return lambda found: any(words in sentence for sentence in found["notices"])


_COLBERT = {"family": "late_interaction", "lengths": {"query": 32, "document": 128}}
_RERANKER = {"family": "cross_encoder", "lengths": {"query": 64, "document": 128}}

CASES = {
    "fp32": Case("full training in float32"),
    "bf16": Case("autocast", {"precision": "bf16"}, 2e-2),
    "fp16": Case("autocast with gradient scaling", {"precision": "fp16"}, 2e-2, needs_gpus=1),
    "cached": Case(
        "gradient caching",
        {"loss": {"cached": True}, "micro_batch_tokens": 2048},
        taken=lambda found: found["facts"]["cached"],
    ),
    "8-bit AdamW": Case("bitsandbytes' optimizer", {"optimizer": "adamw_8bit"}),
    "paged 8-bit AdamW": Case("its paged twin", {"optimizer": "paged_adamw_8bit"}),
    "LoRA": Case(
        "adapters",
        {"lora": {"r": 16}, "learning_rate": 5e-4},
        taken=lambda found: found["facts"]["trained_parameters"] < found["facts"]["parameters"] / 10,
    ),
    "LoRA, int8": Case(
        "adapters on a quantized base",
        {"lora": {"r": 16}, "quantization": "int8", "learning_rate": 5e-4},
        5e-2,
    ),
    "LoRA, int4": Case("QLoRA", {"lora": {"r": 16}, "quantization": "int4", "learning_rate": 5e-4}, 2e-1),
    "gradient checkpointing": Case("layers computed again", {"gradient_checkpointing": True}),
    "last 2 layers": Case("train_last_n", {"train_last_n": 2, "learning_rate": 1e-3}),
    "compile": Case("torch.compile, bf16", {"compile": True, "precision": "bf16", "padding": "fixed"}, 2e-2),
    "out of memory": Case(
        "a batch larger than the GPU: narrowed inside the step",
        {"batch_size": 1024, "loss": {"cached": False}, "micro_batch_tokens": 1 << 20, "max_steps": 4},
        1.0,
        needs_gpus=1,
        taken=_told("Out of memory at step 1"),
        memory_fraction=0.03,
    ),
    "remine": Case(
        "negatives mined on the GPU", {"remine": _REMINE, "sample": 400}, 1.0, taken=_told("Negatives mined")
    ),
    "remine, background": Case(
        "negatives mined on the CPU meanwhile",
        {"remine": {**_REMINE, "background": True}, "sample": 400, "precision": "bf16"},
        1.0,
        taken=_told("Negatives mined with the weights of step"),
    ),
    "ColBERT": Case("late interaction in float32", _COLBERT, like="ColBERT"),
    "ColBERT, bf16, cached": Case(
        "MaxSim of vectors computed again under autocast",
        {**_COLBERT, "precision": "bf16", "loss": {"cached": True}, "micro_batch_tokens": 2048},
        2e-2,
        like="ColBERT",
    ),
    "ColBERT, LoRA": Case(
        "adapters, and the rows of [Q] and [D]",
        {**_COLBERT, "lora": {"r": 16}, "learning_rate": 5e-4},
        like="ColBERT",
    ),
    "ColBERT, pooled": Case(
        "vectors averaged in clusters", {**_COLBERT, "prune_embeddings": {}, "batch_size": 64}, 1.0
    ),
    "cross-encoder": Case("pairs in float32", _RERANKER, like="cross-encoder"),
    "cross-encoder, bf16, cached": Case(
        "pairs computed again under autocast",
        {**_RERANKER, "precision": "bf16", "loss": {"cached": True}, "micro_batch_tokens": 2048},
        2e-2,
        like="cross-encoder",
    ),
    "FSDP, offload": Case(
        "weights and optimizer in main memory",
        {"sharding": "fsdp", "offload": True, "loss": {"cached": True}, "micro_batch_tokens": 4096},
        taken=_told("which lie in main memory"),
    ),
    "FSDP, bf16": Case(
        "weights gathered as bf16",
        {"sharding": "fsdp", "precision": "bf16", "gradient_checkpointing": True},
        2e-2,
        taken=_told("The model is sharded"),
    ),
    "two GPUs, FSDP": Case(
        "ranks share the model, too",
        {"sharding": "fsdp", "resources": {"gpus": 2}},
        needs_gpus=2,
        taken=lambda found: found["facts"]["processes"] == 2,
    ),
    "two GPUs": Case(
        "ranks share the batch",
        {"resources": {"gpus": 2}},
        needs_gpus=2,
        taken=lambda found: found["facts"]["processes"] == 2,
    ),
}


# -- one case, in its own process ------------------------------------------------------------------------


def prepare(folder: Path) -> None:
    """The model and the rows of all cases."""
    import sysconfig

    from core.data.documents.python_source import source_pairs
    from tests.tiny import make_model

    make_model(folder / "model", dropout=0.0, hidden=384, layers=6)
    pairs = list(source_pairs(Path(sysconfig.get_path("stdlib"))))
    lines = [json.dumps({"query": pair.query, "positive": pair.positive}) for pair in pairs]
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "few.jsonl").write_text("\n".join(lines[:200]) + "\n")


def batch_size(gpus: int) -> int:
    return 128 if gpus else 16


def make_spec(folder: Path, case: Case, *, gpus: int) -> dict[str, Any]:
    return {
        "kind": "train",
        "base_model": f"file:{folder / 'model'}",
        "dataset": f"file:{folder / 'rows.jsonl'}",
        "batch_size": batch_size(gpus),
        "max_steps": _STEPS,
        "learning_rate": 1e-4,
        "warmup_ratio": 0,
        "precision": "fp32",
        "lengths": {"query": _LENGTH, "document": _LENGTH},
        "loss": {"cached": False},
        "logging_steps": 1,
        "checkpoint": {"every_steps": None, "every_seconds": None},
        "resources": {"gpus": min(gpus, 1)},
        **case.fields,
    }


def run_case(name: str, folder: Path, *, gpus: int) -> dict[str, Any]:
    """Trains, and says what was told and measured."""
    import itertools
    import statistics
    import time

    import torch

    from core.jobs.events import Event, EventType
    from core.process.local import run_local
    from core.runtime.reporter import RecordingReporter

    case = CASES[name]
    moments: list[float] = []

    class Timed(RecordingReporter):
        def emit(self, event: Event) -> None:
            super().emit(event)
            if event.type is EventType.METRIC and "loss" in event.data.values:
                moments.append(time.perf_counter())

    if case.memory_fraction is not None and gpus:
        from core.process.main import see_first_gpu

        see_first_gpu(["0"])
        torch.cuda.set_per_process_memory_fraction(case.memory_fraction)
    spec = make_spec(folder, case, gpus=gpus)
    out = Path(tempfile.mkdtemp(dir=folder))
    said = run_local({**spec, "dry_run": True}, out / "dry", RecordingReporter())
    reporter = Timed()
    result = run_local(spec, out / "real", reporter)
    events = reporter.events
    losses = [
        event.data.values["loss"]
        for event in events
        if event.type is EventType.METRIC and "loss" in event.data.values
    ]
    peaks = [event.data.gpu_peak_bytes or 0 for event in events if event.type is EventType.MEMORY]
    seconds = [later - earlier for earlier, later in itertools.pairwise(moments)]
    facts = {}
    if result.state == "succeeded":
        facts = json.loads((out / "real" / "model" / "manifest.json").read_text())["metadata"]
    return {
        "state": result.state,
        "end": result.end_reason.message,
        "losses": losses,
        "notices": [event.data.message for event in events if event.type is EventType.NOTICE],
        "facts": facts,
        "seconds_per_step": statistics.median(seconds[2:]) if len(seconds) > 2 else None,
        "gpu_peak_bytes": max(peaks, default=0),
        "said_bytes": said.metrics.get("estimate", {}).get("memory"),
    }


def judge(name: str, found: dict[str, Any], others: dict[str, Any]) -> list[str]:
    """What is wrong with a case; nothing if it passed."""
    case, losses = CASES[name], found["losses"]
    if found["state"] != "succeeded":
        return [f"{found['state']}: {found['end']}"]
    wrong = []
    if not all(loss is not None and loss == loss for loss in losses):
        wrong.append("a loss is no number")
    elif min(losses[1:], default=losses[0]) >= losses[0]:
        wrong.append("the loss does not fall")
    reference = (others.get(case.like, {}).get("losses") or losses)[0]
    if "batch_size" not in case.fields and abs(losses[0] - reference) > case.tolerance * abs(reference):
        wrong.append(f"the first loss is {losses[0]:.5f}, of {case.like} {reference:.5f}")
    if not case.taken(found):
        wrong.append("the path was not taken")
    return wrong


# -- what is no single training ---------------------------------------------------------------------------


def check_forked(folder: Path, *, gpus: int) -> list[str]:
    """A job from the warm fork server, as in the service: its process must be able to use CUDA, twice."""
    from core.jobs.protocol import EVENTS, REQUEST, RESULT, RunRequest, RunResult
    from worker.launch import Launcher

    launcher = Launcher()
    wrong = []
    for attempt in (1, 2):
        run_folder = Path(tempfile.mkdtemp(dir=folder))
        request = RunRequest(
            job_id=f"forked-{attempt}",
            attempt=1,
            spec=make_spec(folder, CASES["bf16"], gpus=gpus),
            checkpoints=run_folder / "checkpoints",
            cache=folder / "cache",
            gpus=["0"] if gpus else [],
        )
        (run_folder / REQUEST).write_text(request.model_dump_json())
        process, control = launcher.start(run_folder)
        process.join(300)
        control.close()
        if not (run_folder / RESULT).exists():
            return [f"attempt {attempt} left no result: {(run_folder / EVENTS).read_text()[-300:]}"]
        result = RunResult.model_validate_json((run_folder / RESULT).read_bytes())
        if result.state != "succeeded":
            wrong.append(f"attempt {attempt}: {result.end_reason.message}")
        elif gpus and '"gpu_bytes": null' in (run_folder / EVENTS).read_text().splitlines()[-1]:
            wrong.append(f"attempt {attempt} did not use the GPU")
    return wrong


def check_resume(folder: Path, *, gpus: int) -> list[str]:
    """Stopped and gone on, a training ends where an uninterrupted one does."""
    from safetensors.torch import load_file

    from core.jobs.events import Event, EventType
    from core.process.local import run_local
    from core.runtime.context import StopSignal
    from core.runtime.reporter import NullReporter

    stop = StopSignal()

    class StopLater(NullReporter):
        def emit(self, event: Event) -> None:
            if event.type is EventType.METRIC and event.data.step >= _STEPS // 2:
                stop.request("pause")

    spec = make_spec(folder, CASES["bf16"], gpus=gpus)
    whole, parts = folder / "whole", folder / "parts"
    run_local(spec, whole, NullReporter())
    if (state := run_local(spec, parts, StopLater(), stop=stop).state) != "paused":
        return [f"it was to be paused, and it is {state}"]
    if (result := run_local(spec, parts, NullReporter())).state != "succeeded":
        return [result.end_reason.message]
    one, two = (load_file(out / "model" / "model.safetensors") for out in (whole, parts))
    farthest = max(float((one[name] - two[name]).abs().max()) for name in one)
    # A GPU's sums are not in a fixed order: nearly the same, not to the bit.
    return [] if farthest < 1e-3 else [f"weights differ by {farthest:.1e}"]


def check_mining(folder: Path, *, gpus: int) -> list[str]:
    """A mine job finds on the GPU what it finds on the CPU, and in bf16 most of it."""
    import pyarrow.parquet as pq

    from core.process.local import run_local
    from core.runtime.reporter import NullReporter

    found = {}
    arms = {"cpu": ("fp32", 0), "fp32": ("fp32", gpus), "bf16": ("bf16", gpus)}
    for arm, (precision, on) in arms.items():
        spec = {
            "kind": "mine",
            "dataset": f"file:{folder / ('rows.jsonl' if gpus else 'few.jsonl')}",
            "model": f"file:{folder / 'model'}",
            "max_length": _LENGTH,
            "precision": precision,
            "filters": {"positive_aware": None, "near_duplicates": None},
            "resources": {"gpus": min(on, 1)},
        }
        out = folder / f"mined-{arm}"
        result = run_local(spec, out, NullReporter())
        if result.state != "succeeded":
            return [f"{arm}: {result.end_reason.message}"]
        rows = pq.read_table(out / "dataset" / "train.parquet", columns=["negatives"]).to_pylist()
        found[arm] = [set(row["negatives"]) for row in rows]
    expected = found["cpu"]
    wrong = []
    for arm, least in (("fp32", 0.98), ("bf16", 0.7)):
        same = sum(len(one & two) for one, two in zip(expected, found[arm], strict=True))
        share = same / sum(map(len, expected))
        if share < least:
            wrong.append(f"{arm}: {share:.1%} of the negatives are those of the CPU")
    return wrong


def check_evaluation(folder: Path, *, gpus: int) -> list[str]:
    """An evaluate job scores on the GPU as on the CPU, in all precisions; an embed job stores the same."""
    import numpy as np

    from core.process.local import run_local
    from core.runtime.reporter import NullReporter

    scores: dict[str, list[float]] = {}
    vectors = {}
    rows = f"file:{folder / ('rows.jsonl' if gpus else 'few.jsonl')}"
    arms = {"cpu": ("fp32", 0), "fp32": ("fp32", gpus), "bf16": ("bf16", gpus)}
    for arm, (compute, on) in arms.items():
        shared = {"compute": compute, "resources": {"gpus": min(on, 1)}}
        model = f"file:{folder / 'model'}"
        specs = {
            "evaluated": {
                "kind": "evaluate",
                "models": [{"ref": model, "max_length": _LENGTH}],
                "datasets": [rows],
                "metrics": ["ndcg@10"],
                "precisions": ["int8", "binary"],
                "latency_queries": 20,
            },
            "embedded": {"kind": "embed", "model": model, "corpus": rows, "max_length": _LENGTH},
        }
        for name, spec in specs.items():
            result = run_local({**spec, **shared}, folder / f"{name}-{arm}", NullReporter())
            if result.state != "succeeded":
                return [f"{name}, {arm}: {result.end_reason.message}"]
        page = json.loads((folder / f"evaluated-{arm}" / "report" / "report.json").read_text())
        (of_sets,) = page["precisions"].values()
        scores[arm] = [item["scores"]["ndcg@10"] for found in of_sets.values() for item in found]
        stored = sorted((folder / f"embedded-{arm}" / "embeddings").glob("vectors-*.npy"))
        vectors[arm] = np.concatenate([np.load(path) for path in stored])
    wrong = []
    for arm, tolerance in (("fp32", 0.01), ("bf16", 0.05)):
        farthest = max(abs(one - two) for one, two in zip(scores["cpu"], scores[arm], strict=True))
        if farthest > tolerance:
            wrong.append(f"{arm}: nDCG@10 differs by {farthest:.4f}")
        cosine = float((vectors["cpu"] * vectors[arm]).sum(1).min())
        if cosine < 1 - tolerance:
            wrong.append(f"{arm}: a vector's cosine with that of the CPU is {cosine:.4f}")
    return wrong


def compare_speed(folder: Path, *, gpus: int) -> dict[str, float]:
    """Seconds a step of every family, ours and its library's, on the same rows in the same batches."""
    import itertools
    import statistics
    from functools import partial

    from benchmarks import trainers, training

    data = trainers.Data("stdlib", batch_size(gpus) // 2, _STEPS if gpus else 4, 256, 1)
    rows = training.order(training.load_rows("stdlib", None) or [], data)
    device = "cuda" if gpus else "cpu"
    models = training.prepare_models(folder / "families")
    seconds = {}
    for family, precision in itertools.product(models, ("fp32", "bf16")):
        for name, arm in (("theirs", trainers.THEIRS[family]), ("ours", partial(trainers.ours, family))):
            counter = trainers.Counter()
            steps = arm(models[family], rows, data, counter, device=device, bf16=precision == "bf16")
            between = [later[0] - earlier[0] for earlier, later in itertools.pairwise(steps)]
            seconds[f"{family}, {name}, {precision}"] = statistics.median(between[2:])
    return seconds


# -- the whole run -------------------------------------------------------------------------------------


def _in_process(what: str, folder: Path, gpus: int) -> Any:
    """What another process of this script prints as its last line."""
    command = [sys.executable, "-m", "benchmarks.gpu.run", "--part", what, str(folder), "--gpus", str(gpus)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"state": "crashed", "end": done.stderr.strip()[-600:], "losses": []}
    return json.loads(done.stdout.splitlines()[-1])


_PARTS = {
    "forked": check_forked,
    "resume": check_resume,
    "mining": check_mining,
    "evaluation": check_evaluation,
    "speed": compare_speed,
}


def main(*, cpu: bool, only: str) -> int:
    import torch

    gpus = 0 if cpu else torch.cuda.device_count()
    if not gpus and not cpu:
        sys.exit("No GPU: --cpu tries the script itself")
    device = torch.cuda.get_device_name(0) if gpus else "CPU"
    cases: dict[str, Any] = {}
    checks: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        for title, case in CASES.items():
            if only not in title or case.needs_gpus > gpus:
                continue
            print(title, file=sys.stderr)
            cases[title] = _in_process(title, folder, gpus)
            cases[title]["wrong"] = judge(title, cases[title], cases)
        for title in ("forked", "resume", "mining", "evaluation"):
            if only in title:
                print(title, file=sys.stderr)
                found = _in_process(title, folder, gpus)
                checks[title] = [found["end"]] if isinstance(found, dict) else found
        speed = _in_process("speed", folder, gpus) if only in "speed" else {}
    versions = {"torch": torch.__version__, "cuda": torch.version.cuda, "device": device, "gpus": gpus}
    write(versions, cases, checks, speed)
    return int(any(case["wrong"] for case in cases.values()) or any(checks.values()))


def write(
    versions: dict[str, Any], cases: dict[str, Any], checks: dict[str, list[str]], speed: dict[str, Any]
) -> None:
    lines = [
        "| case | | s a step | peak | said | first loss | last loss |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for name, case in cases.items():
        passed = "; ".join(case["wrong"]) or "passed"
        if not case["losses"]:
            lines.append(f"| {name} | {passed} | | | | | |")
            continue
        said = case["said_bytes"]["total"] - case["said_bytes"]["process"] if case["said_bytes"] else 0
        peaks = f"{case['gpu_peak_bytes'] / 1e9:.2f} GB | {said / 1e9:.2f} GB"
        losses = f"{case['losses'][0]:.4f} | {case['losses'][-1]:.4f}"
        lines.append(f"| {name} | {passed} | {case['seconds_per_step'] or 0:.3f} | {peaks} | {losses} |")
    lines += ["", *(f"- {name}: {'; '.join(wrong) or 'passed'}" for name, wrong in checks.items())]
    lines += [
        f"- {name}: {seconds:.3f} s a step" for name, seconds in speed.items() if isinstance(seconds, float)
    ]
    if not versions["gpus"]:
        print("\n".join(lines))
        return
    title = f"{versions['device']} ({versions['gpus']}), torch {versions['torch']}, CUDA {versions['cuda']}"
    write_report(
        "gpu",
        {**versions, "cases": cases, "checks": checks, "speed": speed},
        lambda where: ["# Training on a GPU", "", f"{title}; {where}.", "", *lines],
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--part", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--gpus", type=int, default=0, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.part:
        part, place = asked.part
        act = _PARTS.get(part)
        found = act(Path(place), gpus=asked.gpus) if act else run_case(part, Path(place), gpus=asked.gpus)
        print(json.dumps(found))
    else:
        sys.exit(main(cpu=asked.cpu, only=asked.only))
