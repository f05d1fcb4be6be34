"""What every family keeps, whichever it is: the promises of a training, once for all three."""

import pytest
import torch

from core.jobs.events import EventType
from tests.training.failing import poison, small_memory
from tests.training.running import StopAt, equal, of, run, same_losses, warnings, weights

FAMILIES = ["dense", "late_interaction", "cross_encoder"]


@pytest.fixture(params=FAMILIES)
def family(request) -> str:
    return request.param


@pytest.fixture
def spec(family, bases, word_rows) -> dict:
    return {
        "kind": "train",
        "family": family,
        "base_model": f"file:{bases['lively'][family]}",
        "dataset": f"file:{word_rows}",
        "batch_size": 6,
        "learning_rate": 2e-3,
        "epochs": 2,
        "logging_steps": 1,
    }


def steady(spec, bases) -> dict:
    """Without dropout, and without Adam, which makes steps out of gradients that are zero but for rounding: a
    key's bias has such."""
    base = f"file:{bases['steady'][spec['family']]}"
    return {**spec, "base_model": base, "optimizer": "sgd", "learning_rate": 0.02}


def asked_for_scores(spec, word_rows) -> dict:
    datasets = [{"ref": f"file:{word_rows}", "name": "rows"}]
    return {**spec, "evaluation": {"datasets": datasets, "metrics": ["ndcg@10", "mrr@10"]}}


@pytest.mark.parametrize("stop_at", [2, 7])
@pytest.mark.parametrize("change", [{}, {"lora": {"r": 4}}], ids=["whole", "lora"])
def test_stopped_and_resumed_it_ends_bit_identical(spec, tmp_path, stop_at, change):
    spec |= change
    run(spec, tmp_path / "whole")
    reporter = StopAt(stop_at)
    result, _ = run(spec, tmp_path / "parts", reporter=reporter, stop=reporter.stop)
    assert result.state == "cancelled", result.end_reason
    result, events = run(spec, tmp_path / "parts")
    assert result.state == "succeeded", result.end_reason
    assert of(events, EventType.METRIC)[0]["step"] > stop_at
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


@pytest.mark.parametrize("change", [{}, {"lora": {"r": 4, "alpha": 64}}], ids=["whole", "lora"])
def test_what_was_evaluated_is_what_was_saved(spec, word_rows, tmp_path, change):
    spec = asked_for_scores(spec | change, word_rows) | {"epochs": 6}
    result, _ = run(spec, tmp_path / "first")
    assert result.state == "succeeded", result.end_reason
    scores = result.metrics
    assert scores["finetuned"] != scores["baseline"]
    again = spec | {"base_model": f"file:{tmp_path / 'first' / 'model'}", "max_steps": 1, "lora": None}
    result, _ = run(again, tmp_path / "second")
    assert result.metrics["baseline"] == scores["finetuned"]


def test_an_encoder_becomes_a_model_of_the_family(spec, bases, word_rows, tmp_path):
    """A new projection or head is drawn with the seed, trained and saved."""
    spec = asked_for_scores(spec, word_rows) | {"base_model": f"file:{bases['lively']['dense']}", "epochs": 4}
    for out in ("first", "second"):
        result, _ = run(spec, tmp_path / out)
        assert result.state == "succeeded", result.end_reason
    one, two = weights(tmp_path / "first"), weights(tmp_path / "second")
    assert all(torch.equal(one[name], two[name]) for name in one)
    losses = [data["values"]["loss"] for data in of(_, EventType.METRIC) if "loss" in data["values"]]
    assert sum(losses[-5:]) < sum(losses[:5])
    told = [data["message"] for data in of(_, EventType.NOTICE)]
    if spec["family"] == "cross_encoder":  # what was drawn is named
        assert any("classifier.bias, classifier.weight" in line for line in told)
    if spec["family"] == "late_interaction":
        assert any("it gets a new projection to" in line for line in told)


def test_the_loss_in_micro_batches_is_the_same(spec, bases, tmp_path):
    spec = steady(spec, bases)
    _, expected = run(spec, tmp_path / "plain")
    _, events = run(spec | {"loss": {"cached": True}, "micro_batch_tokens": 64}, tmp_path / "cached")
    assert same_losses(events, expected)
    equal(tmp_path / "plain", tmp_path / "cached")


def test_out_of_memory_narrows_the_micro_batch_and_never_the_batch(spec, bases, tmp_path, monkeypatch):
    spec = steady(spec, bases)
    _, expected = run(spec, tmp_path / "plain")
    through = small_memory(monkeypatch, 70)
    result, events = run(spec, tmp_path / "small")
    assert result.state == "succeeded", result.end_reason
    assert "gradient caching" in warnings(events)[0]
    assert max(through) <= 70
    assert same_losses(events, expected)
    equal(tmp_path / "plain", tmp_path / "small")


def test_a_step_without_numbers_is_left_out(spec, tmp_path, monkeypatch):
    poison(monkeypatch, {4})
    result, events = run(spec, tmp_path / "out")
    assert result.state == "succeeded", result.end_reason
    [told] = warnings(events)
    assert told.startswith("Step 4 was left out: gradient of ")
    assert all(bool(torch.isfinite(tensor).all()) for tensor in weights(tmp_path / "out").values())


def test_an_evaluation_goes_on_in_halves(spec, word_rows, tmp_path, monkeypatch):
    spec = asked_for_scores(spec, word_rows) | {
        "max_steps": 1,
        "loss": {"cached": True},
        "micro_batch_tokens": 64,
    }
    expected, _ = run(spec, tmp_path / "plain")
    small_memory(monkeypatch, 40)
    result, _ = run(spec, tmp_path / "small")
    assert result.state == "succeeded", result.end_reason
    assert result.metrics["baseline"] == expected.metrics["baseline"]


@pytest.mark.parametrize("processes", [2])
def test_processes_share_every_batch(spec, bases, tmp_path, processes):
    spec = steady(spec, bases) | {"max_steps": 6}
    _, expected = run(spec, tmp_path / "alone")
    result, events = run(spec, tmp_path / "shared", processes=processes)
    assert result.state == "succeeded", result.end_reason
    assert same_losses(events, expected)
    equal(tmp_path / "alone", tmp_path / "shared")


@pytest.mark.parametrize(
    "change",
    [
        {"precision": "bf16"},
        {"gradient_checkpointing": True},
        {"train_last_n": 1},
        {"padding": "fixed"},
        {"gradient_accumulation_steps": 2, "optimizer": "adamw_8bit"},
        {"lengths": {"query": 16, "document": 24, "cut": "sections"}, "prompts": {"query": "what: "}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_options_train(spec, tmp_path, change):
    result, events = run(spec | {"max_steps": 3} | change, tmp_path / "out")
    assert result.state == "succeeded", result.end_reason
    assert of(events, EventType.PROGRESS)[-1]["step"] == 3


def test_the_report_names_the_family(spec, tmp_path, family):
    run(spec | {"max_steps": 1}, tmp_path / "out")
    card = (tmp_path / "out" / "model" / "README.md").read_text()
    assert {
        "dense": "SentenceTransformer(",
        "late_interaction": "ColBERT(",
        "cross_encoder": "CrossEncoder(",
    }[family] in card


def test_triplets_are_scored_by_every_family(spec, word_rows, tmp_path):
    spec |= {
        "epochs": 6,
        "evaluation": {"datasets": [f"file:{word_rows}"], "metrics": ["triplet_accuracy", "margin"]},
    }
    result, _ = run(spec, tmp_path / "out")
    assert result.state == "succeeded", result.end_reason
    before, after = (result.metrics[name]["rows"] for name in ("baseline", "finetuned"))
    assert set(before) == set(after) == {"triplet_accuracy", "margin"}
    assert after["margin"] != before["margin"]
    assert 0 <= after["triplet_accuracy"] <= 1
