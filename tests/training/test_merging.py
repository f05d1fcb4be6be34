"""The published weights are averaged with the base model's, and what is reported is what is published."""

import json

import pytest
import torch
from safetensors.torch import load_file

from core.jobs.events import EventType
from tests.training.running import of, run, warnings, weights


def spec_of(base, rows, family="dense", **fields) -> dict:
    return {
        "kind": "train",
        "family": family,
        "base_model": f"file:{base}",
        "dataset": f"file:{rows}",
        "batch_size": 8,
        "max_steps": 4,
        "learning_rate": 1e-2,
        "resources": {"gpus": 0},
        **fields,
    }


@pytest.mark.parametrize("family", ["dense", "late_interaction", "cross_encoder"])
def test_the_published_weights_are_the_average(bases, uneven_rows, tmp_path, family):
    base = bases["steady"][family]
    plain, _ = run(spec_of(base, uneven_rows, family), tmp_path / "plain")
    merged, events = run(spec_of(base, uneven_rows, family, merge={"base_weight": 0.25}), tmp_path / "merged")
    assert (plain.state, merged.state) == ("succeeded", "succeeded"), (plain, merged)
    before = load_file(base / "model.safetensors")
    trained, published = weights(tmp_path / "plain"), weights(tmp_path / "merged")
    assert any(not torch.equal(trained[name], before[name]) for name in before if name in trained)
    for name, tensor in published.items():
        if name in before and tensor.is_floating_point():
            expected = 0.25 * before[name] + 0.75 * trained[name]
            assert torch.allclose(tensor, expected, atol=1e-5), name
    told = " ".join(data["message"] for data in of(events, EventType.NOTICE))
    assert "merge.base_weight 0.25" in told


def test_lora_is_averaged_exactly(bases, uneven_rows, tmp_path):
    base = bases["steady"]["dense"]
    lora = {"lora": {"r": 2, "alpha": 4, "dropout": 0.0}}
    run(spec_of(base, uneven_rows, **lora), tmp_path / "plain")
    run(spec_of(base, uneven_rows, **lora, merge={"base_weight": 0.5}), tmp_path / "merged")
    before = load_file(base / "model.safetensors")
    trained, published = weights(tmp_path / "plain"), weights(tmp_path / "merged")
    assert any(not torch.allclose(trained[name], before[name], atol=1e-4) for name in before)
    for name in before:
        assert torch.allclose(published[name], (before[name] + trained[name]) / 2, atol=1e-5), name


def test_the_report_is_about_the_published_weights(bases, uneven_rows, tmp_path):
    base = bases["steady"]["dense"]
    evaluation = {"datasets": [f"file:{uneven_rows}"], "every_steps": 2}
    spec = spec_of(base, uneven_rows, merge={"base_weight": 0.99}, evaluation=evaluation)
    result, events = run(spec, tmp_path / "out")
    assert result.state == "succeeded", result.end_reason
    finetuned, baseline = result.metrics["finetuned"], result.metrics["baseline"]
    # Of the base alone it is a hundredth away: its numbers are those of the base, not of the trained model.
    assert finetuned["rows"]["ndcg@10"] == pytest.approx(baseline["rows"]["ndcg@10"], abs=0.05)
    values = [data["values"] for data in of(events, EventType.METRIC)]
    assert any("merged/ndcg@10" in found for found in values)
    assert json.loads((tmp_path / "out" / "result.json").read_text())["metrics"]["finetuned"] == finetuned


def test_a_head_that_was_drawn_is_not_averaged(bases, uneven_rows, tmp_path):
    spec = spec_of(bases["steady"]["dense"], uneven_rows, "late_interaction", merge={"base_weight": 0.5})
    result, events = run(spec, tmp_path / "out")
    assert result.end_reason.code == "bad_spec", (result, warnings(events))
    assert "drawn at random" in result.end_reason.message
