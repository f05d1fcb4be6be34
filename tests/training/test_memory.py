"""The memory that a training is said to need, and what it takes."""

import json
import random
import subprocess
import sys

import pytest

from core.models.memory import ModelShape, Step, least_memory, shape_of, training_memory
from core.process.local import run_local
from core.runtime.reporter import RecordingReporter
from core.spec import parse_spec

MINILM = {
    "model_type": "bert",
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "intermediate_size": 1536,
    "num_attention_heads": 12,
    "vocab_size": 30522,
    "max_position_embeddings": 512,
}


def spec(**fields):
    return parse_spec({"kind": "train", "base_model": "a/b", "dataset": "file:x", **fields})


def memory(shape: ModelShape | None = None, *, cached=False, precision="fp32", device="cpu", **fields):
    return training_memory(
        spec(**fields),
        shape or shape_of(MINILM, 22_713_216),
        Step(32, 256, 1),
        device=device,
        precision=precision,
        cached=cached,
    )


def test_activations_grow_with_the_batch_and_not_when_cached():
    small, large = (memory(batch_size=size).activations for size in (32, 128))
    assert large == pytest.approx(4 * small, rel=0.01)
    small, large = (memory(batch_size=size, cached=True).activations for size in (32, 128))
    assert large == small


def test_gradients_and_optimizer_are_of_what_is_trained():
    full, lora = memory(), memory(lora={"r": 8})
    assert full.gradients == 4 * 22_713_216
    assert full.optimizer == 8 * 22_713_216
    assert lora.gradients == 4 * 6 * 4 * 2 * 384 * 8
    assert memory(optimizer="adamw_8bit").optimizer == 2 * 22_713_216
    assert memory(train_last_n=2).gradients == pytest.approx(full.gradients * 2 * 1.77e6 / 22.7e6, rel=0.02)


def test_fewer_bits_shrink_the_frozen_base_alone():
    plain, int8, int4 = (memory(lora={"r": 8}, quantization=bits).weights for bits in (None, "int8", "int4"))
    linear = 6 * (4 * 384**2 + 2 * 384 * 1536)
    assert plain - int8 == pytest.approx(3 * linear, rel=0.001)
    assert int4 < int8


def test_dropout_in_the_attention_costs_its_matrices_on_a_cpu():
    with_dropout = shape_of({**MINILM, "attention_probs_dropout_prob": 0.1}, 22_713_216)
    assert memory(with_dropout).activations > 1.5 * memory().activations
    assert memory(with_dropout, device="cuda").activations == memory(device="cuda").activations


def test_the_least_is_less_than_anything():
    shape = shape_of(MINILM, 22_713_216)
    floor = least_memory(spec(batch_size=4096), shape, device="cpu", precision="fp32")
    assert floor < memory(batch_size=4096, cached=True).total < memory(batch_size=4096).total


@pytest.mark.parametrize(
    "names", [{"d_model": 384, "num_layers": 6, "d_ff": 1536, "n_heads": 12}, {"dim": 384, "n_layers": 6}]
)
def test_other_models_call_it_otherwise(names):
    shape = shape_of({"vocab_size": 30522, **names}, 22_713_216)
    assert (shape.hidden, shape.layers, shape.intermediate) == (384, 6, 1536)


_ONE_JOB = """
import json, re, sys
from pathlib import Path
import psutil
import core.kinds.train
base = psutil.Process().memory_info().rss
from core.process.local import run_local
from core.runtime.reporter import RecordingReporter
result = run_local(json.loads(sys.argv[1]), Path(sys.argv[2]), RecordingReporter())
assert result.state == "succeeded", result.end_reason
# Not ru_maxrss: it begins with the peak of the process that started this one, which tests have made large.
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
print(json.dumps([result.metrics, base, peak]))
"""


@pytest.mark.parametrize("cached", [False, True])
def test_the_peak_is_within_a_fifth_of_what_a_dry_run_says(cached, tmp_path):
    """Of a process of its own, as wide a model as a small one: four layers of 256."""
    from tests.tiny import WORDS, make_model

    model = make_model(tmp_path / "model", dropout=0.0, hidden=256, layers=4)
    drawn = random.Random(0)
    rows = [
        {"query": " ".join(drawn.choices(WORDS, k=20)), "positive": " ".join(drawn.choices(WORDS, k=120))}
        for _ in range(128)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    job = {
        "kind": "train",
        "base_model": f"file:{model}",
        "dataset": f"file:{tmp_path / 'rows.jsonl'}",
        "batch_size": 64,
        "max_steps": 2,
        "micro_batch_tokens": 2048,
        "loss": {"cached": cached},
        "resources": {"gpus": 0},
    }

    def run(name: str, **fields):
        command = [sys.executable, "-c", _ONE_JOB, json.dumps({**job, **fields}), str(tmp_path / name)]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    metrics, _, _ = run("dry", dry_run=True)
    said = metrics["estimate"]["memory"]
    _, base, peak = run("real")
    # How much of the libraries' files is resident is the system's business: 0.9 to 1.2 GB on one machine.
    assert peak == pytest.approx(said["total"] - said["process"] + max(base, said["process"]), rel=0.2)


@pytest.mark.parametrize(("times", "cached"), [(3, True), (5, False)])
def test_a_step_takes_a_quarter_of_the_free_main_memory_at_most(steady, tmp_path, monkeypatch, times, cached):
    """``times``: the free memory, as a multiple of what the step takes without gradient caching."""
    rows = [{"query": f"river {number}", "positive": f"water {number}"} for number in range(64)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    job = {
        "kind": "train",
        "base_model": f"file:{steady}",
        "dataset": f"file:{tmp_path / 'rows.jsonl'}",
        "batch_size": 64,
        "dry_run": True,
        "resources": {"gpus": 0},
    }
    plain = run_local({**job, "loss": {"cached": False}}, tmp_path / "plain", RecordingReporter())
    said = plain.metrics["estimate"]["memory"]
    taken = said["total"] - said["process"] - said["weights"]
    monkeypatch.setattr("core.training.prepare.free_memory", lambda _: times * taken)
    found = run_local(job, tmp_path / "auto", RecordingReporter())
    assert found.state == "succeeded", found.end_reason
    assert found.metrics["estimate"]["cached"] is cached
