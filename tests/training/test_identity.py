"""Keys hold everything that changes the value: of vectors, of tokens, of a training's state."""

import json
import shutil

import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Dense, Normalize

from core.engine.models.identity import Identity
from core.jobs.events import EventType
from core.process.local import run_local
from core.runtime.reporter import RecordingReporter
from tests.training.running import StopAt, of, run


def changed(model, folder, change):
    """A copy of a model's folder with a change of a file."""
    shutil.copytree(model, folder)
    change(folder)
    return folder


def rewrite(name, **values):
    """Sets entries of a JSON file of the folder."""

    def change(folder):
        path = folder / name
        found = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**found, **values}))

    return change


def add_module(module):
    def change(folder):
        model = SentenceTransformer(str(folder), device="cpu")
        model.append(module(model))
        model.save(str(folder))

    return change


def pool_first_token(folder):
    """Whichever version of the library has saved it."""
    path = folder / "1_Pooling" / "config.json"
    old = {"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}
    content = json.loads(path.read_text())
    path.write_text(
        json.dumps({**content, **({"pooling_mode": "cls"} if "pooling_mode" in content else old)})
    )


CHANGES = {
    "pooling": pool_first_token,
    "length": rewrite("sentence_bert_config.json", max_seq_length=16),
    "lower_case": rewrite("sentence_bert_config.json", do_lower_case=True),
    "activation": rewrite("config.json", hidden_act="relu"),
    "layer_norm": rewrite("config.json", layer_norm_eps=1e-3),
    "prompts": rewrite("config_sentence_transformers.json", prompts={"query": "q: ", "document": ""}),
    "similarity": rewrite("config_sentence_transformers.json", similarity_fn_name="dot"),
    "normalize": add_module(lambda model: Normalize()),
    "dense": add_module(lambda model: Dense(32, 32)),
    "padding_side": rewrite("tokenizer_config.json", padding_side="left"),
}


def identity(folder) -> Identity:
    return Identity.of(SentenceTransformer(str(folder), device="cpu"))


def test_the_same_model_elsewhere_is_the_same(tiny_model, tmp_path):
    copy = changed(tiny_model, tmp_path / "copy", rewrite("config.json", _name_or_path="elsewhere"))
    assert identity(copy) == identity(tiny_model)
    assert identity(copy).key("fp32") == identity(tiny_model).key("fp32")
    assert identity(copy).key("fp32") != identity(tiny_model).key("bf16")


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changes_vectors_changes_the_key(tiny_model, tmp_path, change):
    other = changed(tiny_model, tmp_path / "other", CHANGES[change])
    assert identity(other).model_sha256 != identity(tiny_model).model_sha256
    assert identity(other).key() != identity(tiny_model).key()


def test_other_libraries_change_the_key(tiny_model, monkeypatch):
    before = identity(tiny_model).key()
    monkeypatch.setattr("core.engine.models.identity.library_versions", lambda: {"torch": "0"})
    assert identity(tiny_model).key() != before


def test_two_poolings_of_one_model_in_one_evaluation(tiny_model, pairs_file, tmp_path):
    other = changed(tiny_model, tmp_path / "cls", CHANGES["pooling"])

    def evaluate(*models, cache):
        spec = {
            "kind": "evaluate",
            "models": [{"ref": f"file:{model}", "name": f"m{number}"} for number, model in enumerate(models)],
            "datasets": [{"ref": f"file:{pairs_file}", "name": "pairs"}],
            "metrics": ["ndcg@10"],
        }
        out = tmp_path / f"out-{len(list(tmp_path.iterdir()))}"
        result = run_local(spec, out, RecordingReporter(), cache=tmp_path / cache)
        assert result.state == "succeeded", result.end_reason
        return {name: json.dumps(value) for name, value in result.metrics["scores"].items()}

    together = evaluate(tiny_model, other, cache="shared")
    assert together["m0"] == evaluate(tiny_model, cache="first")["m0"]
    assert together["m1"] == evaluate(other, cache="second")["m0"]
    assert together["m0"] != together["m1"]


# -- going on from a checkpoint ----------------------------------------------------------------------


@pytest.fixture
def job(tiny_model, pairs_file, tmp_path):
    """A training that was stopped after a checkpoint, and what it was made from."""
    rows, model, judged = tmp_path / "rows.jsonl", tmp_path / "model", tmp_path / "judged.jsonl"
    for path in (rows, judged):
        shutil.copy(pairs_file, path)
    shutil.copytree(tiny_model, model)
    spec = {
        "kind": "train",
        "base_model": f"file:{model}",
        "dataset": f"file:{rows}",
        "batch_size": 8,
        "max_steps": 8,
        "epochs": 2,
        "evaluation": {"datasets": [{"ref": f"file:{judged}"}], "metrics": ["ndcg@10"], "baseline": False},
        "checkpoint": {"every_steps": 2},
        "logging_steps": 1,
    }
    stopping = StopAt(3)
    result, _ = run(spec, tmp_path / "out", reporter=stopping, stop=stopping.stop)
    assert result.state == "cancelled"
    return spec, tmp_path


def rows_of(path):
    return path.read_text().splitlines()


RESUME_CHANGES = {
    "rows": ("rows", lambda folder: _other_rows(folder / "rows.jsonl", 0)),
    "eight_rows": ("rows", lambda folder: _other_rows(folder / "rows.jsonl", 56)),
    "fewer_rows": ("rows", lambda folder: _keep(folder / "rows.jsonl", 60)),
    "order": ("rows", lambda folder: _reverse(folder / "rows.jsonl")),
    "base": ("base model", lambda folder: CHANGES["pooling"](folder / "model")),
    "evaluation": ("evaluation set judged", lambda folder: _keep(folder / "judged.jsonl", 30)),
}


def _other_rows(path, begin):
    lines = rows_of(path)
    path.write_text("\n".join([*lines[:begin], *(line.replace("what", "which") for line in lines[begin:])]))


def _keep(path, count):
    path.write_text("\n".join(rows_of(path)[:count]))


def _reverse(path):
    path.write_text("\n".join(reversed(rows_of(path))))


@pytest.mark.parametrize("change", RESUME_CHANGES)
def test_a_changed_input_is_refused_and_named(job, change):
    spec, folder = job
    what, edit = RESUME_CHANGES[change]
    edit(folder)
    result, _ = run(spec, folder / "out")
    assert result.state == "failed"
    assert result.end_reason.code in ("bad_data", "bad_model")
    assert f"changed since: {what}." in result.end_reason.message
    assert "--overwrite" in result.end_reason.message
    anew, events = run(spec, folder / "out", overwrite=True)
    assert anew.state == "succeeded", anew.end_reason
    assert not any("Going on from" in data["message"] for data in of(events, EventType.NOTICE))


def test_what_has_not_changed_goes_on(job):
    spec, folder = job
    shutil.move(folder / "rows.jsonl", folder / "elsewhere.jsonl")
    (folder / "rows.jsonl").symlink_to(folder / "elsewhere.jsonl")
    result, events = run(spec, folder / "out")
    assert result.state == "succeeded", result.end_reason
    assert any("Going on from" in data["message"] for data in of(events, EventType.NOTICE))


def test_other_libraries_are_told(job, monkeypatch):
    spec, folder = job
    monkeypatch.setattr("core.training.checkpoints.resuming.library_versions", lambda: {"torch": "0.0"})
    result, events = run(spec, folder / "out")
    assert result.state == "succeeded", result.end_reason
    assert any("other libraries: torch" in data["message"] for data in of(events, EventType.NOTICE))


def test_another_version_of_the_training_code_is_refused(job, monkeypatch):
    spec, folder = job
    monkeypatch.setattr("core.training.checkpoints.resuming.STATE", -1)
    result, _ = run(spec, folder / "out")
    assert "version of the training code" in result.end_reason.message
