"""Models in shards (FSDP2), over two processes of a CPU: the same training as by one that is not sharded."""

import json
from pathlib import Path

import pytest
import torch

from core.engine.micro_batches import split_into, tokens_of
from core.errors import InvalidRequest
from core.models.memory import ModelShape, Step, least_memory, training_memory
from core.process.local import run_local
from core.spec import parse_spec
from tests.faults.service import until
from tests.training.processes import helpers, make_spec, sabotage, start_job
from tests.training.running import StopAt, equal, losses, run, same_losses, weights

FSDP = {"sharding": "fsdp"}


def evaluated(**fields) -> dict:
    return {
        "evaluation": {
            "holdout": 0.2,
            "metrics": ["ndcg@10"],
            "every_steps": 2,
            "early_stopping": {"metric": "ndcg@10", "patience": 9},
            **fields,
        }
    }


def config_of(folder: Path) -> dict:
    return json.loads((folder / "model/config.json").read_text())


@pytest.mark.parametrize(
    "fields",
    [
        {"loss": {"cached": False}, "gradient_accumulation_steps": 2},
        {"loss": {"cached": True, "symmetric": True}, "offload": True},
        {"loss": {"cached": True}, "gradient_checkpointing": True, "train_last_n": 1},
        {"loss": {"cached": True}, "lora": {"r": 4}, "max_gradient_norm": 0, "optimizer": "sgd"},
    ],
    ids=["plain", "cached-offload", "checkpointing-last-layer", "lora"],
)
def test_two_processes_that_share_a_model_train_as_one(fields, uneven_rows, steady, tmp_path):
    """Loss by loss, evaluated in between; the best weights are taken back, and the saved model is plain."""
    spec = make_spec(uneven_rows, steady, **evaluated(), **fields, learning_rate=5e-3)
    alone, expected = run({**spec, "offload": False}, tmp_path / "one")
    shared, events = run({**spec, **FSDP}, tmp_path / "two", processes=2)
    assert (alone.state, shared.state) == ("succeeded", "succeeded"), shared.end_reason
    assert same_losses(events, expected)
    equal(tmp_path / "one", tmp_path / "two")
    assert config_of(tmp_path / "one") == config_of(tmp_path / "two")
    for when in ("baseline", "finetuned"):
        one, two = (result.metrics[when]["rows-holdout"]["ndcg@10"] for result in (alone, shared))
        assert two == pytest.approx(one, abs=0.05), when
    until(lambda: not helpers(), 10, "no helper is left")


@pytest.mark.slow
def test_a_guide_and_an_odd_number_of_processes(uneven_rows, steady, tmp_path):
    """Three processes: parts of different sizes, and batches that none of them divides."""
    loss = {"guide": {"model": f"file:{steady}"}, "cached": True}
    spec = make_spec(uneven_rows, steady, loss=loss, epochs=1)
    _, expected = run(spec, tmp_path / "one")
    shared, events = run({**spec, **FSDP}, tmp_path / "three", processes=3)
    assert shared.state == "succeeded", shared.end_reason
    assert same_losses(events, expected)
    equal(tmp_path / "one", tmp_path / "three")


@pytest.mark.slow
@pytest.mark.parametrize("family", ["late_interaction", "cross_encoder"])
def test_the_other_families_train_and_evaluate_alike(family, uneven_rows, steady, tmp_path):
    spec = make_spec(uneven_rows, steady, family=family, epochs=1, **evaluated(early_stopping=None))
    alone, expected = run(spec, tmp_path / "one")
    shared, events = run({**spec, **FSDP}, tmp_path / "two", processes=2)
    assert shared.state == "succeeded", shared.end_reason
    assert same_losses(events, expected)
    equal(tmp_path / "one", tmp_path / "two")
    one, two = (result.metrics["finetuned"]["rows-holdout"]["ndcg@10"] for result in (alone, shared))
    assert two == pytest.approx(one, abs=0.05)


def test_bf16_gathers_weights_in_bf16_and_keeps_them_in_float32(uneven_rows, steady, tmp_path):
    spec = make_spec(uneven_rows, steady, precision="bf16", epochs=1)
    _, expected = run(spec, tmp_path / "one")
    shared, events = run({**spec, **FSDP}, tmp_path / "two", processes=2)
    assert shared.state == "succeeded", shared.end_reason
    assert losses(events) == pytest.approx(losses(expected), rel=0.05, abs=0.02)
    assert {tensor.dtype for tensor in weights(tmp_path / "two").values()} == {torch.float32}


@pytest.mark.slow
def test_stopped_and_resumed_it_ends_as_if_never_stopped(uneven_rows, tiny_model, tmp_path):
    """With dropout, bit by bit. The request to stop comes to the first rank alone, where the others must
    follow: it saves with their shards, between a step and an evaluation."""
    fields = {
        **evaluated(every_steps=1),
        "checkpoint": {"every_steps": 2, "every_seconds": None, "keep": 1},
        "data_loader_workers": 1,
    }
    spec = make_spec(uneven_rows, tiny_model, **fields, **FSDP)
    run(spec, tmp_path / "whole", processes=2)
    reporter = StopAt(3)
    stopped = run_local(spec, tmp_path / "out", reporter, stop=reporter.stop, processes=2)
    assert stopped.state == "cancelled"
    until(lambda: not helpers(), 10, "no helper is left")
    [last] = (tmp_path / "out").glob("checkpoints/attempt-*/checkpoint-*")
    assert last.name == "checkpoint-4"
    result, events = run(spec, tmp_path / "out", processes=2)
    assert result.state == "succeeded"
    assert losses(events)[0] > 0
    one, two = weights(tmp_path / "whole"), weights(tmp_path / "out")
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert evaluations(tmp_path / "whole") == evaluations(tmp_path / "out")


def evaluations(folder: Path) -> list[dict]:
    return json.loads((folder / "report/report.json").read_text())["evaluations"]


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [("fsdp", "none"), ("none", "fsdp")])
def test_a_checkpoint_does_not_depend_on_who_shares_the_model(before, after, uneven_rows, steady, tmp_path):
    """Three processes begin, one goes on, and the other way round: tensors and optimizer are whole."""
    spec = make_spec(uneven_rows, steady, checkpoint={"every_steps": 3, "every_seconds": None})
    processes = {"fsdp": 3, "none": 1}
    _, expected = run(spec, tmp_path / "whole")
    reporter = StopAt(3)
    begun = {**spec, "sharding": before}
    stopped = run_local(begun, tmp_path / "first", reporter, stop=reporter.stop, processes=processes[before])
    assert stopped.state == "cancelled"
    result, events = run({**spec, "sharding": after}, tmp_path / "first", processes=processes[after])
    assert result.state == "succeeded", result.end_reason
    told = [getattr(event.data, "message", "") for event in events]
    assert any("Going on from checkpoint-4" in sentence for sentence in told)
    later = losses(expected)[-len(losses(events)) :]
    assert losses(events) == pytest.approx(later, rel=1e-4, abs=1e-5)
    equal(tmp_path / "whole", tmp_path / "first")


@pytest.mark.parametrize("background", [False, True])
def test_negatives_are_mined_anew_with_the_sharded_weights(background, uneven_rows, steady, tmp_path):
    remine = {"num_negatives": 2, "every_epochs": 1, "background": background}
    spec = make_spec(uneven_rows, steady, remine=remine)
    _, expected = run(spec, tmp_path / "one")
    shared, events = run({**spec, **FSDP}, tmp_path / "two", processes=2)
    assert shared.state == "succeeded", shared.end_reason
    assert same_losses(events, expected)
    equal(tmp_path / "one", tmp_path / "two")


def test_one_process_with_offload(uneven_rows, steady, tmp_path):
    spec = make_spec(uneven_rows, steady, epochs=1)
    _, expected = run(spec, tmp_path / "one")
    alone, events = run({**spec, **FSDP, "offload": True}, tmp_path / "sharded")
    assert alone.state == "succeeded", alone.end_reason
    assert same_losses(events, expected)


def test_a_step_that_does_not_fit_in_a_helper_ends_the_job_with_advice(
    uneven_rows, steady, tmp_path, monkeypatch
):
    """Nobody waits for its part of a layer: the job ends, and is not tried again as it stands."""
    sabotage(
        tmp_path,
        monkeypatch,
        """
        import torch
        from core.engine import encoding
        def fail(*_):
            raise torch.OutOfMemoryError("CUDA out of memory")
        encoding._forward = fail
        """,
    )
    job = start_job(make_spec(uneven_rows, steady, **FSDP), tmp_path)
    assert job.wait(120) == 1
    ended = json.loads((tmp_path / "job/result.json").read_text())["end_reason"]
    assert ended["code"] == "out_of_memory"
    assert "micro_batch_tokens" in ended["message"]
    until(lambda: not helpers(), 10, "no helper is left")


def test_a_step_that_does_not_fit_in_the_first_ends_the_job_with_advice(
    uneven_rows, steady, tmp_path, monkeypatch
):
    from core.engine import encoding

    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(encoding, "_forward", fail)
    result, _ = run(make_spec(uneven_rows, steady, **FSDP), tmp_path / "out", processes=2)
    assert result.end_reason.code == "out_of_memory"
    assert "Step 1 does not fit" in result.end_reason.message
    assert "these would fit" in result.end_reason.message
    until(lambda: not helpers(), 10, "no helper is left")


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"offload": True}, "offload needs sharding"),
        ({**FSDP, "optimizer": "adamw_8bit"}, "optimizer adamw_8bit"),
        ({**FSDP, "optimizer": "adafactor"}, "optimizer adafactor"),
        ({**FSDP, "precision": "fp16"}, "precision fp16"),
        ({**FSDP, "compile": True}, "compile"),
        ({**FSDP, "lora": {}, "quantization": "int8"}, "quantization"),
        ({**FSDP, "device": "mps"}, "device mps"),
    ],
)
def test_what_cannot_be_sharded_is_refused(fields, named):
    with pytest.raises(InvalidRequest, match=named):
        parse_spec({"kind": "train", "base_model": "file:/model", "dataset": "file:/rows.jsonl", **fields})


def test_the_estimate_shares_what_is_sharded():
    shape = ModelShape(8_000_000_000, 600_000_000, 36, 4096, 12_288, 32, 0.0, 0.0, 32_768)

    def needed(processes: int, **fields):
        spec = parse_spec(
            {"kind": "train", "base_model": "file:/model", "dataset": "file:/rows.jsonl", **fields}
        )
        return training_memory(
            spec, shape, Step(64, 256, 1), device="cuda", precision="bf16", cached=True, processes=processes
        )

    alone, eight, offloaded = needed(1), needed(8, **FSDP), needed(1, **FSDP, offload=True)
    assert alone.weights == 8 * eight.weights == 32_000_000_000
    assert (alone.gradients, alone.optimizer) == (8 * eight.gradients, 8 * eight.optimizer)
    assert needed(8).weights == alone.weights
    assert offloaded.weights == offloaded.gradients == offloaded.optimizer == 0
    assert offloaded.workspace > 2 * 600_000_000  # the table of words is there whole
    assert eight.total < 48e9 < 100e9 < alone.total
    spec = parse_spec({"kind": "train", "base_model": "file:/m", "dataset": "file:/r.jsonl", **FSDP})
    least = [least_memory(spec, shape, device="cuda", precision="bf16", processes=count) for count in (1, 8)]
    assert least[1] < least[0] / 3


def test_micro_batches_are_cut_until_there_are_as_many():
    micro_batches = [
        {"input_ids": torch.arange(12).view(4, 3)},
        {"input_ids": torch.arange(2).view(1, 2)},
        {"input_ids": torch.arange(10).view(5, 2)},
    ]
    for count in range(3, 11):
        found = split_into(micro_batches, count)
        assert len(found) == count
        assert torch.cat([one["input_ids"].flatten() for one in found]).tolist() == [
            *range(12),
            0,
            1,
            *range(10),
        ]
    assert max(tokens_of(one) for one in split_into(micro_batches, 5)) == 6
