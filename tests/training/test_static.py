"""Static embeddings: a table and no transformer, in every place where a bi-encoder may stand."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

from core.engine.batching import Packing
from core.errors import BadModel
from core.families import dense
from core.process.local import run_local
from core.runtime.reporter import RecordingReporter
from core.spec.parts.models import Prompts
from tests.tiny import make_static

TEXTS = ["river of winter", "", "copper and thunder " * 30, "a bridge", "castle"]


@pytest.fixture(scope="module")
def static(tmp_path_factory):
    return make_static(tmp_path_factory.mktemp("static") / "model")


def done(spec, out):
    reporter = RecordingReporter()
    result = run_local(spec, out, reporter)
    assert result.state == "succeeded", result.end_reason
    return result, [event.data.message for event in reporter.events if event.type == "notice"]


def encoded(context, folder, packing=None):
    model = dense.load_model(context, f"file:{folder}", "cpu").eval()
    encode = dense.make_encode(model, Prompts(), packing or Packing(1 << 20), lambda: None)
    return encode(list(TEXTS), "document").numpy()


@pytest.mark.parametrize("normalized", [False, True])
def test_vectors_are_the_librarys(context, tmp_path, normalized):
    folder = make_static(tmp_path / "model", normalized=normalized)
    library = SentenceTransformer(str(folder), device="cpu")
    expected = library.encode(TEXTS, normalize_embeddings=True)
    assert np.abs(encoded(context, folder) - expected).max() < 1e-6
    assert np.abs(encoded(context, folder, Packing(7)) - expected).max() < 1e-6  # a text or two at once


def test_the_tokenizers_own_cut_is_kept(context, tmp_path):
    folder = make_static(tmp_path / "model")
    content = json.loads((folder / "tokenizer.json").read_text())
    content["truncation"] = {
        "max_length": 2, "strategy": "LongestFirst", "stride": 0, "direction": "Right",
    }  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(content))
    expected = SentenceTransformer(str(folder), device="cpu").encode(TEXTS, normalize_embeddings=True)
    assert np.abs(encoded(context, folder) - expected).max() < 1e-6


def as_model2vec(static, folder, **more):
    """As model2vec saves it: another name for the table, in half precision."""
    shutil.copytree(static, folder)
    table = load_file(folder / "model.safetensors")["embedding.weight"]
    save_file({"embeddings": table.half(), **more}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "model2vec", "normalize": True}))
    return folder


def test_a_folder_of_model2vec_is_read_with_float32_weights(context, static, tmp_path):
    folder = as_model2vec(static, tmp_path / "model2vec")
    expected = SentenceTransformer(str(folder), device="cpu").encode(TEXTS, normalize_embeddings=True)
    known = [number for number, text in enumerate(TEXTS) if text]  # the library's float16 makes NaN of ""
    assert np.abs(encoded(context, folder) - expected.astype(np.float32))[known].max() < 1e-3
    model = dense.load_model(context, f"file:{folder}", "cpu")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_broken_folders_are_refused(context, static, tmp_path):
    folder = as_model2vec(static, tmp_path / "quantized", mapping=torch.arange(3))
    with pytest.raises(BadModel, match=r"quantized by model2vec \(mapping"):
        encoded(context, folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(BadModel, match=r"tokenizer\.json of its static embeddings is missing"):
        encoded(context, folder)


@pytest.fixture
def training(static, pairs_file):
    return {
        "kind": "train",
        "base_model": f"file:{static}",
        "dataset": f"file:{pairs_file}",
        "batch_size": 16,
        "learning_rate": 0.05,
        "epochs": 3,
        "evaluation": {"datasets": [{"ref": f"file:{pairs_file}", "name": "pairs"}], "metrics": ["ndcg@10"]},
    }


def test_it_is_trained_and_saved_as_the_library_saves_it(training, tmp_path):
    result, notices = done({**training, "matryoshka": {"dimensions": [8]}}, tmp_path / "out")
    after, before = (result.metrics[model]["pairs"]["ndcg@10"] for model in ("finetuned", "baseline"))
    assert after > before + 0.05
    folder = tmp_path / "out" / "model"
    modules = json.loads((folder / "modules.json").read_text())
    assert modules[0]["type"] == "sentence_transformers.models.StaticEmbedding"
    assert not any("hardly changes" in line for line in notices)
    asked = {"kind": "evaluate", "models": [f"file:{folder}"], "datasets": training["evaluation"]["datasets"]}
    again, _ = done({**asked, "metrics": ["ndcg@10"]}, tmp_path / "again")
    assert str(after)[:9] in json.dumps(again.metrics)


def test_gradients_are_those_of_the_whole_batch_however_it_is_cut(training, tmp_path):
    done({**training, "epochs": 1}, tmp_path / "whole")
    done({**training, "epochs": 1, "micro_batch_tokens": 64, "loss": {"cached": True}}, tmp_path / "parts")
    whole, parts = (
        load_file(next((tmp_path / name / "model").rglob("model.safetensors")))["embedding.weight"]
        for name in ("whole", "parts")
    )
    assert torch.allclose(whole, parts, atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"lora": {}}, "lora"),
        ({"train_last_n": 1}, "train_last_n"),
        ({"freeze_base": True}, "freeze_base"),
        ({"gradient_checkpointing": True}, "gradient_checkpointing"),
        ({"lora": {}, "quantization": "int8"}, "quantization"),
        ({"lengths": {"saved": "trained"}}, "lengths.saved"),
    ],
)
def test_what_needs_layers_is_refused(training, tmp_path, fields, reason):
    result = run_local({**training, **fields}, tmp_path / "out", RecordingReporter())
    assert (result.state, result.end_reason.code) == ("failed", "bad_spec")
    assert result.end_reason.message.startswith(f"{reason}: ")


def test_a_small_learning_rate_is_said_to_do_little(training, tmp_path):
    _, notices = done({**training, "learning_rate": 5e-5, "max_steps": 1}, tmp_path / "out")
    assert any("hardly changes static embeddings" in line for line in notices)


def test_it_mines_guides_embeds_and_retrieves(static, tiny_model, training, pairs_file, tmp_path):
    mined, _ = done(
        {
            "kind": "mine",
            "dataset": f"file:{pairs_file}",
            "model": f"file:{static}",
            "filters": {"positive_aware": None, "near_duplicates": None},
        },
        tmp_path / "mined",
    )
    assert mined.metrics["dataset"]["splits"] == {"train": 64}
    done({"kind": "embed", "model": f"file:{static}", "corpus": f"file:{pairs_file}"}, tmp_path / "embedded")
    guided = {"guide": {"model": f"file:{static}"}}
    done({**training, "base_model": f"file:{tiny_model}", "loss": guided, "max_steps": 2}, tmp_path / "g1")
    other_way = {"guide": {"model": f"file:{tiny_model}"}}
    done({**training, "loss": other_way, "max_steps": 2}, tmp_path / "g2")
    reranked = {**training["evaluation"], "rerank": {"retriever": f"file:{static}", "depth": 5}}
    done(
        {
            **training,
            "base_model": f"file:{tiny_model}",
            "family": "cross_encoder",
            "evaluation": reranked,
            "max_steps": 2,
        },
        tmp_path / "reranked",
    )
