"""What a job would take, asked over HTTP: from headers and the first rows, with nothing queued."""

import json
import shutil

import pytest

from api import estimates
from core.jobs.hosts import Gpu
from core.jobs.reasons import EndReason
from core.models.memory import operations
from core.store.artifacts import NewArtifact
from core.store.attempts.leases import Capacity
from core.store.fleet import Inventory
from tests.api.submitting import CPU, post
from tests.held import held_by


@pytest.fixture
def spec(settings, tiny_model, pairs_file) -> dict:
    data = settings.data_dir
    data.mkdir(exist_ok=True)
    shutil.copytree(tiny_model, data / "model")
    shutil.copy(pairs_file, data / "pairs.jsonl")
    return {
        "kind": "train",
        "base_model": f"file:{data / 'model'}",
        "dataset": f"file:{data / 'pairs.jsonl'}",
        "batch_size": 8,
        "epochs": 2,
    }


def estimate(http, spec) -> dict:
    answer = http.post("/jobs/estimate", json=spec)
    assert answer.status_code == 200, answer.text
    return answer.json()


def register(http, memory: int, gpus=()) -> None:
    http.app.state.store.workers.register(Inventory("host", 1, list(gpus), memory, ["cpu"]))


def test_memory_steps_and_workers(http, spec):
    register(http, 64 * 10**9)
    found = estimate(http, spec)
    assert (found["device"], found["precision"]) == ("cpu", "fp32")
    assert (found["rows"], found["steps"]) == (64, 16)
    parts = found["memory"]
    assert parts["total"] == sum(size for name, size in parts.items() if name != "total")
    assert {"weights", "gradients", "optimizer", "activations", "loss"} <= set(parts)
    assert parts["optimizer"] == 2 * parts["weights"] == 2 * parts["gradients"]
    assert found["least_memory_bytes"] < parts["total"] + 1
    assert [(worker["host"], worker["fits"]) for worker in found["workers"]] == [("host", True)]
    assert found["seconds"] is None
    assert any("seconds is unknown" in note for note in found["notes"])
    assert http.get("/jobs").json()["items"] == []


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"optimizer": "sgd"}, "optimizer"),
        ({"lora": {"r": 2}}, "gradients"),
        ({"loss": {"cached": True}, "batch_size": 512, "micro_batch_tokens": 64}, None),
        ({"gradient_checkpointing": True}, "activations"),
    ],
)
def test_what_saves_memory_is_seen_to_save_it(http, spec, change, part):
    plain = {**spec, **({"batch_size": 512} if part is None else {})}
    assert (
        estimate(http, {**spec, **change})["memory"][part or "activations"]
        < (estimate(http, plain)["memory"][part or "activations"])
    )


def train_with(http, spec, rate: float, times_larger: float = 1.0) -> None:
    """Finish a training of a model so many times as large as the spec's, at this rate."""
    post(http, spec)
    store = http.app.state.store
    held = store.leases.claim(CPU, 30)
    shape = estimates.find_shape(spec["base_model"], {}, http.app.state.library, [])
    count = operations(shape, 1000) * times_larger
    facts = {"device": "cpu", "tokens": 1000, "operations": count, "training_seconds": count / rate}
    made = NewArtifact("model", "model", "file:///x", "0" * 64, 1, {"metadata": facts})
    store.leases.finish(held, EndReason.SUCCEEDED, outputs=[held_by(store, made)])


def test_seconds_come_from_earlier_trainings(http, spec):
    register(http, 64 * 10**9)
    train_with(http, spec, rate=2e9)
    one, two = (estimate(http, {**spec, "max_steps": steps})["seconds"] for steps in (1000, 2000))
    assert two == pytest.approx(2 * one, rel=0.01)
    assert one > 0


def test_a_training_of_another_size_says_little_of_the_time(http, spec):
    """The rate of a tiny model once made five thousand minutes of eight seconds."""
    register(http, 64 * 10**9)
    spec = {**spec, "max_steps": 10_000}
    train_with(http, spec, rate=1e9, times_larger=1e-4)
    found = estimate(http, spec)
    assert found["seconds"] is None
    assert any("no training of a model of about this size" in note for note in found["notes"])
    train_with(http, spec, rate=1e8, times_larger=0.1)
    rough = estimate(http, spec)
    assert any("rough" in note for note in rough["notes"])
    train_with(http, spec, rate=1e9)
    found = estimate(http, spec)
    assert found["seconds"] == pytest.approx(rough["seconds"] / 10, rel=0.01)
    assert not any("seconds" in note for note in found["notes"])


def test_what_no_worker_can_hold_is_refused_with_the_numbers(http, spec):
    register(http, 10**8)
    answer = post(http, spec)
    assert answer.status_code == 422
    [problem] = answer.json()["errors"]
    assert problem["path"] == "base_model"
    assert "no worker has more than 0.1 GB" in problem["message"]
    assert estimate(http, spec)["workers"][0]["fits"] is False


def test_a_gpu_in_the_fleet_is_reckoned_with(http, spec):
    register(http, 10**9, [Gpu(uuid="GPU-1", index=0, name="H200", memory_bytes=140 * 10**9)])
    found = estimate(http, spec)
    assert (found["device"], found["precision"]) == ("cuda", "bf16")
    assert found["workers"][0]["memory_bytes"] == 140 * 10**9
    assert estimate(http, {**spec, "resources": {"gpus": 0}})["device"] == "cpu"


def test_a_training_on_the_cpu_asks_for_no_gpu_memory(http, spec):
    answer = post(http, {**spec, "resources": {"gpus": 0}})
    assert answer.status_code == 201, answer.text
    assert http.app.state.store.jobs.get(answer.json()["id"]).gpu_memory_bytes is None


def test_several_gpus_share_the_batch(http, spec):
    gpus = [
        Gpu(uuid=f"GPU-{index}", index=index, name="H200", memory_bytes=(140 - index) * 10**9)
        for index in range(2)
    ]
    register(http, 10**9, gpus)
    spec["loss"] = {"cached": False}
    one = estimate(http, {**spec, "batch_size": 1024, "resources": {"gpus": 1}})
    two = estimate(http, {**spec, "batch_size": 1024, "resources": {"gpus": 2}})
    assert two["memory"]["activations"] == pytest.approx(one["memory"]["activations"] / 2, rel=0.01)
    assert two["memory"]["weights"] == one["memory"]["weights"]
    assert two["workers"][0]["memory_bytes"] == 139 * 10**9  # the smaller of the two counts
    answer = post(http, {**spec, "resources": {"gpus": 3}})
    assert answer.status_code == 422
    assert "no host has more than 2" in answer.json()["errors"][0]["message"]


def test_a_job_waits_for_a_gpu_that_can_hold_it(http, spec):
    """`resources.gpu_memory_gb: auto` is what the model cannot do without."""
    job = post(http, {**spec, "resources": {"gpus": 1}}).json()
    store = http.app.state.store
    assert store.leases.claim(Capacity(worker="w", gpus={"GPU-small": 10**8}), 30) is None
    held = store.leases.claim(Capacity(worker="w", gpus={"GPU-large": 10**10}), 30)
    assert held.job_id == job["id"]


def test_what_is_not_known_is_null_with_a_note(http, spec):
    found = estimate(http, {**spec, "base_model": "nobody/nothing"})
    assert found["memory"] is None
    assert any("the size of nobody/nothing is not known" in note for note in found["notes"])
    assert found["steps"] == 16


def test_a_model_in_the_hubs_cache_is_measured(http, spec, settings, tmp_path, monkeypatch):
    snapshot = tmp_path / "hub" / "models--some--model" / "snapshots" / "abc"
    shutil.copytree(settings.data_dir / "model", snapshot)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    there = estimate(http, {**spec, "base_model": "some/model"})
    assert there["memory"] == estimate(http, spec)["memory"]
    assert estimate(http, {**spec, "base_model": "hf:some/model@abc"})["memory"] == there["memory"]
    assert estimate(http, {**spec, "base_model": "hf:some/model@v2"})["memory"] is None


def test_a_checkpoint_in_a_models_folder_is_no_part_of_it(http, spec, settings):
    alone = estimate(http, spec)["memory"]
    inside = settings.data_dir / "model" / "checkpoint-5"
    inside.mkdir()
    shutil.copy(settings.data_dir / "model" / "model.safetensors", inside)
    assert estimate(http, spec)["memory"] == alone


@pytest.mark.parametrize(
    "break_it",
    [
        lambda folder: (folder / "config.json").write_text("{"),
        lambda folder: (folder / "config.json").write_text(json.dumps({"model_type": "bert"})),
        lambda folder: (folder / "model.safetensors").write_bytes(b"\xff" * 20),
        lambda folder: (folder / "model.safetensors").write_bytes(b""),
        lambda folder: (folder / "config.json").write_text("[" * 200_000),
        lambda folder: (folder / "config.json").write_text(
            '{"model_type": "bert", "hidden_size": Infinity, "num_hidden_layers": 2}'
        ),
        lambda folder: (folder / "config.json").write_text(
            '{"model_type": "bert", "hidden_size": -32, "num_hidden_layers": 2}'
        ),
    ],
)
def test_a_broken_model_is_a_note_and_not_a_crash(http, spec, settings, break_it):
    break_it(settings.data_dir / "model")
    found = estimate(http, spec)
    assert found["memory"] is None
    assert any("memory is unknown" in note for note in found["notes"])


def test_references_are_checked_as_at_submission(http, spec, tmp_path):
    assert http.post("/jobs/estimate", json={**spec, "dataset": f"file:{tmp_path}/x"}).status_code == 403
    missing = {**spec, "dataset": spec["dataset"] + "x"}
    assert http.post("/jobs/estimate", json=missing).status_code == 404
    assert http.post("/jobs/estimate", json={**spec, "epoch": 1}).status_code == 422


def test_a_sample_changes_the_steps_and_not_the_lengths(http, spec):
    whole, part = estimate(http, spec), estimate(http, {**spec, "sample": 16})
    assert (part["rows"], part["steps"]) == (16, 4)
    assert part["lengths"] == whole["lengths"]
    assert estimate(http, {**spec, "evaluation": {"holdout": 0.5}})["rows"] == 32


def test_a_look_at_bad_rows_ends_as_well(http, spec, settings, monkeypatch):
    monkeypatch.setattr(estimates, "_SECONDS", 0.05)
    bad = settings.data_dir / "bad.jsonl"
    bad.write_text('{"query": "a", "positive": "b"}\n' + '{"bad": 1}\n' * 300_000)
    found = estimate(http, {**spec, "dataset": f"file:{bad}"})
    assert found["rows"] is None
    assert any("rows is unknown" in note for note in found["notes"])


def test_a_batch_has_no_more_pairs_than_there_are_rows(http, spec):
    register(http, 10**10)
    large = {**spec, "batch_size": 65_536}
    assert estimate(http, large)["memory"]["loss"] < 10**6
    assert post(http, large).status_code == 201


@pytest.mark.parametrize("positions", ["512", -1, 0, None])
def test_positions_that_are_none(http, spec, settings, positions):
    path = settings.data_dir / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"max_position_embeddings": positions}))
    found = estimate(http, spec)
    assert min(found["memory"].values()) >= 0
    assert found["lengths"]["document"]["mean"] > 2


def test_layers_that_are_used_several_times_do_not_count_below_nothing(http, spec, settings):
    path = settings.data_dir / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_hidden_layers": 100}))
    found = estimate(http, {**spec, "lora": {}, "quantization": "int4"})
    assert min(found["memory"].values()) >= 0


def test_fixed_padding_takes_more_and_frozen_layers_less(http, spec):
    plain = estimate(http, spec)["memory"]["activations"]
    assert estimate(http, {**spec, "padding": "fixed"})["memory"]["activations"] > plain
    assert estimate(http, {**spec, "train_last_n": 1})["memory"]["activations"] < plain


def test_a_model_that_fits_on_no_gpu_fits_in_shards(http, spec, settings):
    """Eight billion parameters, of which the header alone is there."""
    folder = settings.data_dir / "model"
    config = json.loads((folder / "config.json").read_text())
    sizes = {"hidden_size": 4096, "num_hidden_layers": 36, "intermediate_size": 12_288, "vocab_size": 150_000}
    (folder / "config.json").write_text(json.dumps(config | sizes))
    tensors = {"words": [150_000, 4096], "layers": [36 * (4 * 4096 + 2 * 12_288), 4096]}
    header = {
        name: {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]} for name, shape in tensors.items()
    }
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
    gpus = [Gpu(uuid=f"GPU-{index}", index=index, name="H100", memory_bytes=80 * 10**9) for index in range(4)]
    register(http, 10**12, gpus)
    whole = post(http, {**spec, "resources": {"gpus": 4}})
    assert whole.status_code == 422
    assert "sharding: fsdp over several GPUs" in whole.json()["detail"]
    shared = {**spec, "resources": {"gpus": 4}, "sharding": "fsdp"}
    assert post(http, shared).status_code == 201
    assert estimate(http, shared)["least_memory_bytes"] < 80 * 10**9
    assert post(http, {**spec, "resources": {"gpus": 1}, "sharding": "fsdp"}).status_code == 422
    offloaded = {**spec, "resources": {"gpus": 1}, "sharding": "fsdp", "offload": True}
    assert post(http, offloaded).status_code == 201


def test_every_kind_is_estimated(http, spec):
    register(http, 64 * 10**9)
    model, data = spec["base_model"], spec["dataset"]
    for asked in (
        {"kind": "embed", "model": model, "corpus": data},
        {"kind": "mine", "model": model, "dataset": data},
        {"kind": "evaluate", "models": [model, "bm25"], "datasets": [data]},
    ):
        found = estimate(http, asked)
        assert found["memory"]["total"] > found["memory"]["weights"] > 0
        assert found["least_memory_bytes"] <= found["memory"]["total"]
        assert [worker["fits"] for worker in found["workers"]] == [True]
        assert any("tokens, from the sizes of the files" in note for note in found["notes"])
    prepared = estimate(http, {"kind": "prepare", "source": data, "task": "triplets"})
    assert prepared["memory"]["weights"] == 0
    assert any("only for jobs in which a model reads" in note for note in prepared["notes"])
    assert http.get("/jobs").json()["items"] == []


def test_a_rerankers_retriever_is_no_text_to_read(http, spec):
    model, data = spec["base_model"], spec["dataset"]
    evaluate = {"kind": "evaluate", "models": [model], "datasets": [data]}
    with_retriever = {**evaluate, "rerank": {"retriever": model.replace("file:", "file:/./", 1)}}
    plain, other = (estimate(http, asked)["notes"] for asked in (evaluate, with_retriever))
    assert [note for note in other if "tokens, from the sizes" in note] == [
        note for note in plain if "tokens, from the sizes" in note
    ]


@pytest.mark.parametrize("kind", ["train", "embed"])
def test_what_nobody_can_fit_is_answered_with_its_estimate(http, spec, kind):
    register(http, 10**8)
    asked = spec
    if kind == "embed":
        asked = {"kind": "embed", "model": spec["base_model"], "corpus": spec["dataset"]}
    answer = post(http, asked)
    assert answer.status_code == 422
    found = answer.json()["estimate"]
    assert found == {**estimate(http, asked), "notes": found["notes"]}
    assert [worker["fits"] for worker in found["workers"]] == [False]


def test_the_queue_says_who_is_next_and_when(http, spec):
    first, second = (post(http, spec).json()["id"] for _ in range(2))
    line = http.get("/queue").json()
    assert (line["queued"], line["running"]) == (2, 0)
    assert [(job["id"], job["position"]) for job in line["jobs"]] == [(first, 0), (second, 1)]
    assert [job["starts_in_seconds"] for job in line["jobs"]] == [None, None]  # no worker is up
    register(http, 64 * 10**9)
    starts = [job["starts_in_seconds"] for job in http.get("/queue").json()["jobs"]]
    assert starts == [0.0, None]  # how long one takes, nobody knows yet
    store = http.app.state.store
    held = store.leases.claim(CPU, 30)
    store.leases.finish(held, EndReason.SUCCEEDED, outputs=[])
    third = post(http, spec).json()["id"]
    line = http.get("/queue").json()["jobs"]
    assert [job["id"] for job in line] == [second, third]
    assert line[1]["starts_in_seconds"] is not None
