"""A model's folder that is not whole ends as `bad_model` before anything is trained, with the file's name."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.process.local import run_local
from core.runtime.reporter import RecordingReporter
from tests.tiny import make_colbert, make_cross_encoder


@pytest.fixture(scope="module")
def models(tiny_model, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("families")
    return {
        "dense": tiny_model,
        "cross_encoder": make_cross_encoder(folder / "cross", tiny_model),
        "late_interaction": make_colbert(folder / "colbert", tiny_model),
    }


def remove(*names):
    def change(folder: Path) -> None:
        for name in names:
            path = folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def replace_with(name: str, content: bytes):
    return lambda folder: (folder / name).write_bytes(content)


def cut_short(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def cut_in_header(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])


def without_a_layer(folder: Path) -> None:
    path = folder / "model.safetensors"
    kept = {name: tensor for name, tensor in load_file(path).items() if "layer.1." not in name}
    save_file(kept, path, metadata={"format": "pt"})


def wider(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if name.endswith("intermediate.dense.weight"))
    save_file({**tensors, name: torch.zeros(7, 5)}, path, metadata={"format": "pt"})


def with_more_tokens(folder: Path) -> None:
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["vocab"] |= {f"word{number}": number for number in range(395, 420)}
    path.write_text(json.dumps(content))


def with_shards_that_are_missing(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    weights = {
        "weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(weights))


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 90868376\n"

TOKENIZER = ("tokenizer.json", "tokenizer_config.json")

BROKEN = {
    "pointer": (replace_with("model.safetensors", POINTER), "model.safetensors is a Git LFS pointer"),
    "empty": (replace_with("model.safetensors", b""), "model.safetensors is empty"),
    "text": (replace_with("model.safetensors", b"not found\n"), "model.safetensors is incomplete, or not"),
    "garbage": (replace_with("model.safetensors", bytes([4, *[0] * 7]) + b"{{{{"), "not a safetensors file"),
    "cut short": (cut_short, "model.safetensors has .* bytes instead of .*: it was not copied completely"),
    "cut in its header": (cut_in_header, "model.safetensors is incomplete"),
    "a layer missing": (
        without_a_layer,
        "layer.1.* are not in its files .*config.json describes a larger model",
    ),
    "other shapes": (
        wider,
        r"intermediate.dense.weight is \[7, 5\] in its files, and config.json makes it \[64, 32\]",
    ),
    "no tokenizer": (remove(*TOKENIZER), "has no tokenizer"),
    "too many tokens": (
        with_more_tokens,
        "tokens up to number 419, and its table of embeddings has",
    ),
    "a shard missing": (with_shards_that_are_missing, "model-00002-of-00002.safetensors, listed in"),
    "config cut short": (replace_with("config.json", b'{"model_type": "bert"'), "config.json"),
    "config a list": (replace_with("config.json", b"[1]"), "config.json of the model has unexpected content"),
}

SPECS = {
    "dense": {"kind": "train"},
    "cross_encoder": {"kind": "train", "family": "cross_encoder", "loss": {"name": "bce"}},
    "late_interaction": {"kind": "train", "family": "late_interaction"},
}


def ended(folder: Path, family: str, pairs: Path, out: Path, **spec):
    reporter = RecordingReporter()
    train = {"base_model": f"file:{folder}", "dataset": f"file:{pairs}", "max_steps": 1, "batch_size": 4}
    result = run_local({**SPECS[family], **train, **spec}, out, reporter)
    assert not [event for event in reporter.events if event.type == "progress"], "a step was trained"
    return result


@pytest.mark.parametrize("family", ["dense", "cross_encoder", "late_interaction"])
@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_model_is_refused_before_a_step(models, pairs_file, tmp_path, family, what):
    change, words = BROKEN[what]
    folder = tmp_path / "model"
    shutil.copytree(models[family], folder)
    change(folder)
    result = ended(folder, family, pairs_file, tmp_path / "out")
    assert result.end_reason.code == "bad_model", result.end_reason
    assert re.search(words, result.end_reason.message), result.end_reason.message


@pytest.mark.parametrize("name", ["1_Pooling", "1_Pooling/config.json"])
def test_a_missing_module_is_named(tiny_model, pairs_file, tmp_path, name):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    remove(name)(folder)
    result = ended(folder, "dense", pairs_file, tmp_path / "out")
    assert result.end_reason.code == "bad_model", result.end_reason
    assert "1_Pooling/config.json, listed in modules.json, is missing (Pooling)" in result.end_reason.message


def test_a_head_that_is_missing_is_refused_where_it_scores(models, pairs_file, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(models["cross_encoder"], folder)
    path = folder / "model.safetensors"
    kept = {name: tensor for name, tensor in load_file(path).items() if "classifier" not in name}
    save_file(kept, path, metadata={"format": "pt"})
    spec = {"kind": "evaluate", "models": [f"file:{folder}"], "datasets": [f"file:{pairs_file}"]}
    result = run_local(spec, tmp_path / "out", RecordingReporter())
    assert result.end_reason.code == "bad_model", result.end_reason
    assert "no trained head (classifier.bias is not in its files)" in result.end_reason.message


def test_a_model_without_a_pooler_is_whole(tiny_model, pairs_file, tmp_path):
    """Most masked language models lack it, and no bi-encoder reads it."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    path = folder / "model.safetensors"
    kept = {name: tensor for name, tensor in load_file(path).items() if "pooler" not in name}
    assert len(kept) < len(load_file(path))
    save_file(kept, path, metadata={"format": "pt"})
    spec = {"kind": "evaluate", "models": [f"file:{folder}"], "datasets": [f"file:{pairs_file}"]}
    result = run_local(spec, tmp_path / "out", RecordingReporter())
    assert result.state == "succeeded", result.end_reason


def test_a_language_model_s_family_is_asked_for(tiny_model, pairs_file, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    remove("modules.json", "1_Pooling")(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["Qwen3ForCausalLM"]}))
    spec = {"kind": "evaluate", "models": [f"file:{folder}"], "datasets": [f"file:{pairs_file}"]}
    result = run_local(spec, tmp_path / "out", RecordingReporter())
    assert result.end_reason.code == "bad_model", result.end_reason
    assert "do not say whether it embeds or scores texts" in result.end_reason.message
