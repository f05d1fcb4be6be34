"""A checkpoint's model is that of the training at that step, in every family and whatever is trained."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from core.data.sources.inputs import make_context
from core.errors import BadModel, StorageFailure
from core.jobs.events import EventType
from core.jobs.protocol import ArtifactInput, RunRequest
from core.process.dispatch import run_job
from core.runtime.context import RunContext
from core.runtime.reporter import RecordingReporter
from core.spec import parse_spec
from tests.tiny import make_model, make_static


def run(spec, folder, inputs=None):
    """A job as in the service, whose outputs go into a storage. Returns output -> uri."""
    request = RunRequest(
        job_id="job_1",
        attempt=1,
        spec=parse_spec(spec).model_dump(mode="json"),
        inputs=inputs or {},
        artifact_url=(folder.parent / "storage").as_uri(),
        checkpoints=folder / "checkpoints",
        cache=folder / "cache",
        offline=True,
    )
    folder.mkdir()
    reporter = RecordingReporter()
    run_job(make_context(request, folder, reporter))
    return {
        event.data.name: ArtifactInput(uri=event.data.uri, sha256=event.data.sha256)
        for event in reporter.events
        if event.type == EventType.OUTPUT
    }


def folder_of(made) -> Path:
    return Path(made.uri.removeprefix("file://"))


def weights(made):
    return {
        f"{path.relative_to(folder_of(made))} {name}": tensor
        for path in folder_of(made).rglob("model.safetensors")
        for name, tensor in load_file(path).items()
    }


def settings(made):
    """The JSON files of a model, without what the trainer leaves in them that no encoder reads."""
    found = {}
    for path in folder_of(made).rglob("*.json"):
        value = json.loads(path.read_text())
        found[str(path.relative_to(folder_of(made)))] = (
            {**value, "use_cache": None} if isinstance(value, dict) else value
        )
    del found["manifest.json"]
    return found


@pytest.fixture
def training(word_rows):
    return {
        "kind": "train",
        "dataset": f"file:{word_rows}",
        "batch_size": 6,
        "learning_rate": 2e-3,
        "max_steps": 4,
        "checkpoint": {"every_steps": 2},
    }


@pytest.mark.parametrize(
    ("family", "fresh", "change"),
    [
        ("dense", False, {}),
        ("dense", False, {"lora": {"r": 4}}),
        ("dense", False, {"train_last_n": 1}),
        ("dense", False, {"prompts": {"query": "what: ", "document": ""}, "lengths": {"document": 12}}),
        ("late_interaction", False, {}),
        ("late_interaction", True, {}),
        ("late_interaction", True, {"lora": {"r": 4}}),
        ("cross_encoder", False, {}),
        ("cross_encoder", True, {"lora": {"r": 4}}),
    ],
)
def test_the_last_checkpoint_is_the_published_model(bases, training, tmp_path, family, fresh, change):
    base = bases["lively"]["dense" if fresh else family]
    spec = {**training, "family": family, "base_model": f"file:{base}", **change}
    made = run(spec, tmp_path / "train")
    assert {"checkpoint@2", "checkpoint@4", "model"} <= set(made)
    exported = {}
    for step in (2, 4):
        reference = f"job:job_1/checkpoint@{step}"
        asked = {"kind": "export", "model": reference}
        known = {reference: made[f"checkpoint@{step}"]}
        exported[step] = run(asked, tmp_path / f"export-{step}", known)["model"]
    trained, last, earlier = weights(made["model"]), weights(exported[4]), weights(exported[2])
    assert trained.keys() == last.keys()
    assert all(torch.equal(trained[name], last[name]) for name in trained)
    assert any(not torch.equal(trained[name], earlier[name]) for name in trained)
    assert settings(made["model"]) == settings(exported[4])


def test_of_a_static_model(training, tmp_path):
    base = make_static(tmp_path / "static")
    made = run({**training, "base_model": f"file:{base}"}, tmp_path / "train")
    reference = "job:job_1/checkpoint@4"
    asked = {"kind": "export", "model": reference}
    exported = run(asked, tmp_path / "export", {reference: made["checkpoint@4"]})
    trained, last = weights(made["model"]), weights(exported["model"])
    assert all(torch.equal(trained[name], last[name]) for name in trained)


def test_another_base_model_is_refused(training, tmp_path):
    base = make_model(tmp_path / "base")
    made = run({**training, "base_model": f"file:{base}"}, tmp_path / "train")
    make_model(base, seed=5)
    reference = "job:job_1/checkpoint@4"
    with pytest.raises(BadModel, match="another model than when it was trained"):
        run({"kind": "export", "model": reference}, tmp_path / "export", {reference: made["checkpoint@4"]})


def test_another_tokenizer_is_refused_as_well(training, tmp_path):
    base = make_model(tmp_path / "base")
    made = run({**training, "base_model": f"file:{base}"}, tmp_path / "train")
    path = base / "1_Pooling" / "config.json"
    told = json.loads(path.read_text())
    turned = {**told, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    path.write_text(json.dumps({**turned, **({"pooling_mode": "cls"} if "pooling_mode" in told else {})}))
    reference = "job:job_1/checkpoint@4"
    with pytest.raises(BadModel, match="weights, tokenizer or settings"):
        run({"kind": "export", "model": reference}, tmp_path / "export", {reference: made["checkpoint@4"]})


def test_what_a_reranker_was_measured_with_is_not_needed(bases, training, word_rows, tmp_path):
    retriever = make_model(tmp_path / "retriever")
    spec = {
        **training,
        "family": "cross_encoder",
        "base_model": f"file:{bases['lively']['cross_encoder']}",
        "evaluation": {
            "datasets": [{"ref": f"file:{word_rows}", "name": "rows"}],
            "metrics": ["ndcg@10"],
            "rerank": {"retriever": f"file:{retriever}", "depth": 5},
        },
    }
    made = run(spec, tmp_path / "train")
    shutil.rmtree(retriever)
    reference = "job:job_1/checkpoint@4"
    known = {reference: made["checkpoint@4"]}
    exported = run({"kind": "export", "model": reference}, tmp_path / "export", known)
    assert weights(exported["model"]).keys() == weights(made["model"]).keys()


def test_a_checkpoint_that_cannot_be_published_ends_no_training(bases, training, tmp_path, monkeypatch):
    """It is told, the next one is published, and nothing is left over."""
    publish, failures = RunContext.publish_checkpoint, [StorageFailure("the storage is away")]

    def failing(self, *arguments):
        if failures:
            raise failures.pop()
        publish(self, *arguments)

    monkeypatch.setattr(RunContext, "publish_checkpoint", failing)
    made = run({**training, "base_model": f"file:{bases['lively']['dense']}"}, tmp_path / "train")
    assert {name for name in made if "@" in name} == {"checkpoint@4"}
    assert list((tmp_path / "train").rglob("weights-*")) == []


def test_what_is_published_is_small(training, bases, tmp_path):
    """Adapters alone, and what the rest is rebuilt from: no copy of the base model."""
    spec = {**training, "base_model": f"file:{bases['lively']['dense']}", "lora": {"r": 2}}
    made = run(spec, tmp_path / "train")
    folder = folder_of(made["checkpoint@4"])
    saved = load_file(folder / "weights.safetensors")
    assert all("lora_" in name for name in saved), sorted(saved)
    told = json.loads((folder / "training.json").read_text())
    assert (told["step"], told["spec"]["lora"]["r"]) == (4, 2)
