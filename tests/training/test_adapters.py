"""LoRA, quantized bases, frozen layers: what is trained is what is saved, and what comes back."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from torch import nn

from core.data.sources.inputs import make_context
from core.errors import BadModel, BadSpec
from core.families.dense.model import load_model
from core.jobs.protocol import RunRequest
from core.runtime.context import RunContext
from core.runtime.reporter import RecordingReporter
from core.spec import parse_spec
from core.spec.parts.training import LoRA
from core.training.adapters import (
    add_lora,
    choose_targets,
    choose_trainable,
    describe_trained,
    merge,
    restore_trained_state,
    trained_state,
)
from tests.tiny import WORDS
from tests.training.running import StopAt, run, weights

TEXTS = ["river", "what is a mountain", "some longer text about a river and its water"]


@pytest.fixture
def context(tmp_path: Path) -> RunContext:
    request = RunRequest(job_id="job_1", attempt=1, spec={}, checkpoints=tmp_path / "c", cache=tmp_path / "k")
    return make_context(request, tmp_path, RecordingReporter())


EVALUATION = {"datasets": ["PAIRS"], "every_steps": 5}


def embed(model: SentenceTransformer) -> torch.Tensor:
    return model.encode(TEXTS, convert_to_tensor=True)


def disturb(model: nn.Module) -> None:
    """As training would: adapters begin as no change at all."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)


@pytest.mark.parametrize(
    ("quantization", "layer", "tolerance"),
    [(None, None, 1e-5), ("int4", "Linear4bit", 1e-4), ("int8", "Linear8bitLt", 0.05)],
)
def test_merged_saved_and_loaded_it_embeds_as_it_did(
    context, tiny_model, tmp_path, quantization, layer, tolerance
):
    model = load_model(context, f"file:{tiny_model}", "cpu", quantization)
    if layer:
        assert any(type(module).__name__ == layer for module in model.modules())
    base = embed(model)
    torch.manual_seed(0)  # adapters begin at random
    assert add_lora(model[0].auto_model, LoRA(r=4, alpha=64)) == ["query", "key", "value"]
    assert torch.allclose(embed(model), base, atol=1e-6)
    disturb(model)
    trained = embed(model)
    moved = (trained - base).abs().max()
    assert moved > 5 * tolerance
    assert merge(model) >= 6
    assert torch.allclose(embed(model), trained, atol=tolerance)
    assert not any(type(module).__name__ in ("Linear4bit", "Linear8bitLt") for module in model.modules())
    model.save_pretrained(str(tmp_path / "saved"))
    again = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    assert torch.allclose(embed(again), trained, atol=tolerance)
    assert set(again.state_dict()) == set(SentenceTransformer(str(tiny_model), device="cpu").state_dict())


@pytest.mark.parametrize("quantization", [None, "int4"])
def test_a_checkpoint_has_what_is_trained_alone_and_brings_it_back_to_the_bit(
    context, tiny_model, quantization
):
    made = []
    for _ in range(2):
        model = load_model(context, f"file:{tiny_model}", "cpu", quantization)
        add_lora(model[0].auto_model, LoRA())
        made.append(model)
    disturb(made[0])
    state = trained_state(made[0])
    assert all("lora_" in name for name in state)
    assert not torch.equal(embed(made[0]), embed(made[1]))
    restore_trained_state(made[1], state)
    assert torch.equal(embed(made[0]), embed(made[1]))
    other = load_model(context, f"file:{tiny_model}", "cpu")
    with pytest.raises(BadModel, match="another choice of what is trained"):
        restore_trained_state(other, state)


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (
            ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj"],
            ["q_proj", "k_proj", "v_proj", "o_proj"],
        ),  # Qwen
        (["Wqkv", "Wo", "Wi"], ["Wqkv", "Wo"]),  # ModernBERT
        (["q", "k", "v", "o", "dense"], ["q", "k", "v", "o"]),  # MPNet
        (["q_lin", "k_lin", "v_lin", "out_lin", "lin1"], ["q_lin", "k_lin", "v_lin", "out_lin"]),
    ],
)
def test_targets_of_known_models(names, chosen):
    transformer = nn.ModuleDict({"layer": nn.ModuleDict({name: nn.Linear(4, 4) for name in names})})
    assert choose_targets(transformer, LoRA()) == chosen


def test_a_model_that_nobody_knows_is_refused_by_the_names_of_its_layers():
    transformer = nn.ModuleDict({"mix": nn.Linear(4, 4), "gate": nn.Linear(4, 4), "norm": nn.LayerNorm(4)})
    with pytest.raises(BadModel, match="gate, mix"):
        choose_targets(transformer, LoRA())
    with pytest.raises(BadSpec, match="no linear layer is called query; there are gate, mix"):
        choose_targets(transformer, LoRA(target_modules=["mix", "query"]))
    assert choose_targets(transformer, LoRA(target_modules=["mix"])) == ["mix"]


def spec_of(**change):
    return parse_spec({"kind": "train", "base_model": "file:m", "dataset": "file:d", **change})


def test_only_the_last_layers_move(context, tiny_model):
    model = load_model(context, f"file:{tiny_model}", "cpu")
    trainable, whole = choose_trainable(spec_of(train_last_n=1), model, model[0].auto_model)
    names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert names
    assert all(".encoder.layer.1." in name or ".pooler." in name for name in names)
    assert 0 < trainable < whole
    with pytest.raises(BadSpec, match="has 2 layers"):
        choose_trainable(spec_of(train_last_n=3), model, model[0].auto_model)


def test_a_frozen_base_with_nothing_behind_it_is_refused_and_a_head_is_trained(context, tiny_model):
    from sentence_transformers.models import Dense

    model = load_model(context, f"file:{tiny_model}", "cpu")
    with pytest.raises(BadSpec, match="nothing is left to train"):
        choose_trainable(spec_of(freeze_base=True), model, model[0].auto_model)
    model = load_model(context, f"file:{tiny_model}", "cpu")
    model.append(Dense(32, 16))
    trainable, _ = choose_trainable(spec_of(freeze_base=True), model, model[0].auto_model)
    assert trainable == 32 * 16 + 16


@pytest.mark.parametrize(
    ("named", "dense"),
    [([], False), (["dense"], True), (["2"], True), (["Dense"], True)],
)
def test_lora_trains_adapters_only_unless_a_module_is_named(tiny_model, named, dense):
    model = SentenceTransformer(str(tiny_model), device="cpu")
    from sentence_transformers.models import Dense

    model.append(Dense(32, 16))
    spec = spec_of(lora={"modules_to_train": named})
    trainable, _ = choose_trainable(spec, model, model[0].auto_model)
    adapters = sum(tensor.numel() for name, tensor in trained_state(model).items() if "lora_" in name)
    assert trainable == adapters + (32 * 16 + 16 if dense else 0)
    told = describe_trained(model, model[0].auto_model)
    assert f"adapters of query {adapters // 3:,}, adapters of key" in told
    assert ("2 (Dense) 528" in told) is dense


def test_a_module_that_is_not_there_is_named(tiny_model):
    model = SentenceTransformer(str(tiny_model), device="cpu")
    from sentence_transformers.models import Dense

    model.append(Dense(32, 16))
    with pytest.raises(BadSpec, match=r"projection; with weights there are: dense"):
        choose_trainable(spec_of(lora={"modules_to_train": ["projection"]}), model, model[0].auto_model)


@pytest.fixture
def spec(tiny_model: Path, pairs_file: Path) -> dict:
    return {
        "kind": "train",
        "base_model": f"file:{tiny_model}",
        "dataset": f"file:{pairs_file}",
        "batch_size": 8,
        "learning_rate": 1e-2,
        "epochs": 2,
    }


@pytest.mark.parametrize(
    "change",
    [
        {"lora": {}},
        {"lora": {"dropout": 0.3}, "quantization": "int4", "evaluation": EVALUATION},
        {"lora": {}, "quantization": "int8"},
        {"lora": {}, "gradient_checkpointing": True, "loss": {"cached": True}, "micro_batch_tokens": 64},
        {"train_last_n": 1},
    ],
)
def test_jobs_stop_go_on_and_end_bit_identical(spec, tiny_model, tmp_path, change):
    if "evaluation" in change:
        change = change | {"evaluation": EVALUATION | {"datasets": [spec["dataset"]]}}
    result, events = run(spec | change, tmp_path / "whole")
    assert result.state == "succeeded", result.end_reason
    notices = " ".join(data["message"] for data in of_type(events, "notice"))
    assert "parameters are trained" in notices
    reporter = StopAt(11)
    run(spec | change, tmp_path / "parts", reporter=reporter, stop=reporter.stop)
    [checkpoint] = (tmp_path / "parts" / "checkpoints").glob("*/checkpoint-*")
    saved = load_file(checkpoint / "weights.safetensors")
    assert sum(tensor.numel() for tensor in saved.values()) < 12_000  # of 35,168: the base is not in it
    result, _ = run(spec | change, tmp_path / "parts")
    assert result.state == "succeeded", result.end_reason
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    base = load_file(tiny_model / "model.safetensors")
    assert any(not torch.equal(whole[name], base[name]) for name in whole)
    report = json.loads((tmp_path / "whole" / "report" / "report.json").read_text())
    assert 0 < report["trained_parameters"] < report["parameters"]


def test_the_best_weights_of_an_adapter_come_back(spec, tmp_path):
    """Evaluated before they are merged and saved, and after they are loaded: the same numbers."""
    rows = [
        {"query": f"what is {WORDS[index % len(WORDS)]}", "positive": f"{WORDS[index % len(WORDS)]} {index}"}
        for index in range(40)
    ]
    path = tmp_path / "dev.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec |= {
        "lora": {},
        "learning_rate": 0.1,  # so that it soon gets worse
        "evaluation": {
            "datasets": [f"file:{path}"],
            "metrics": ["ndcg@10"],
            "every_steps": 2,
            "early_stopping": {"patience": 3},
        },
    }
    result, _ = run(spec, tmp_path / "out")
    assert result.state == "succeeded", result.end_reason
    kept = result.metrics["finetuned"]["dev"]["ndcg@10"]
    again = {
        "kind": "train",
        "base_model": f"file:{tmp_path / 'out' / 'model'}",
        "dataset": spec["dataset"],
        "max_steps": 1,
        "batch_size": 8,
        "evaluation": {"datasets": [f"file:{path}"], "metrics": ["ndcg@10"]},
    }
    result, _ = run(again, tmp_path / "again")
    assert result.metrics["baseline"]["dev"]["ndcg@10"] == pytest.approx(kept, abs=1e-6)


def test_a_checkpoint_does_not_go_onto_another_base(spec, tiny_model, tmp_path):
    from tests.tiny import make_model

    base = make_model(tmp_path / "base")
    spec |= {"lora": {}, "base_model": f"file:{base}"}
    reporter = StopAt(5)
    run(spec, tmp_path / "out", reporter=reporter, stop=reporter.stop)
    disturbed = load_file(base / "model.safetensors")
    disturbed["embeddings.word_embeddings.weight"] += 1
    from safetensors.torch import save_file

    save_file(disturbed, base / "model.safetensors", metadata={"format": "pt"})
    result, _ = run(spec, tmp_path / "out")
    assert result.end_reason.code == "bad_model"
    assert "changed since: base model." in result.end_reason.message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lora": {}, "train_last_n": 1}, "exclude each other"),
        ({"quantization": "int4"}, "quantization needs lora"),
    ],
)
def test_what_does_not_go_together_is_refused_at_submit(change, words):
    from core.errors import InvalidRequest

    with pytest.raises(InvalidRequest, match=words):
        spec_of(**change)


def of_type(events, name):
    return [event.data.model_dump() for event in events if event.type.value == name]
