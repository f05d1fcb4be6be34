"""Faults put into single steps: the batch stays, nothing of a failed try is left, and the user is told."""

import json
from pathlib import Path

import pytest
import torch
from sentence_transformers import SentenceTransformer

from core.engine import encoding
from core.engine.losses import MultipleNegativesRanking
from core.engine.micro_batches import is_out_of_memory, split_micro_batches
from core.errors import OutOfMemory
from core.jobs.events import EventType
from core.training.recovery import describe, free_memory_in_step
from core.training.trainer import PairTrainer
from tests.training.failing import poison, small_memory
from tests.training.running import StopAt, equal, losses, of, run, same_losses, warnings, weights


@pytest.fixture
def spec(steady: Path, pairs_file: Path) -> dict:
    return {
        "kind": "train",
        "base_model": f"file:{steady}",
        "dataset": f"file:{pairs_file}",
        "batch_size": 8,
        "learning_rate": 2e-3,
        "epochs": 2,
        "logging_steps": 1,
    }


def test_out_of_memory_narrows_the_micro_batch_and_never_the_batch(spec, tmp_path, monkeypatch):
    _, expected = run(spec, tmp_path / "plain")
    through = small_memory(monkeypatch, 40)
    result, events = run(spec, tmp_path / "small")
    assert result.state == "succeeded", result.end_reason
    told = warnings(events)
    assert "gradient caching" in told[0]
    assert any("micro-batches have at most" in sentence for sentence in told[1:])
    assert all("Out of memory at step 1:" in sentence for sentence in told)
    assert max(through) <= 40
    assert same_losses(events, expected)
    equal(tmp_path / "plain", tmp_path / "small")


class FailOnce(torch.autograd.Function):
    """Passes everything through, and fails in the backward pass of one call."""

    calls = 0
    at = -1

    @staticmethod
    def forward(context, value):
        return value.clone()

    @staticmethod
    def backward(context, gradient):
        FailOnce.calls += 1
        if FailOnce.calls == FailOnce.at:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return gradient


@pytest.mark.parametrize("at", [1, 13, 14])
def test_out_of_memory_in_the_backward_pass_leaves_no_half_gradients(spec, tmp_path, monkeypatch, at):
    """With accumulation: the batches before it, which had gone through, are done again as well."""
    spec |= {"gradient_accumulation_steps": 3, "micro_batch_tokens": 64}
    run(spec, tmp_path / "plain")
    forward = encoding._forward
    FailOnce.calls, FailOnce.at = 0, at
    monkeypatch.setattr(encoding, "_forward", lambda *arguments: FailOnce.apply(forward(*arguments)))
    result, events = run(spec, tmp_path / "failed")
    assert result.state == "succeeded", result.end_reason
    assert len(warnings(events)) == 1
    equal(tmp_path / "plain", tmp_path / "failed")


def test_too_little_memory_for_a_single_text_is_said(spec, tmp_path, monkeypatch):
    small_memory(monkeypatch, 2)
    result, _ = run(spec, tmp_path / "out")
    assert result.end_reason.code == "out_of_memory"
    assert "too little memory for a single text" in result.end_reason.message
    # Nor on the CPU: then the estimate speaks alone.
    assert "Measured" not in result.end_reason.message
    assert "these would fit: gradient_checkpointing: true (" in result.end_reason.message


def test_the_end_for_want_of_memory_measures_the_parts(spec, tmp_path, monkeypatch):
    """On the CPU, after the device has failed for good."""
    forward = PairTrainer.compute_loss

    def fails(self, *arguments, **options):
        if self.state.global_step == 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return forward(self, *arguments, **options)

    monkeypatch.setattr(PairTrainer, "compute_loss", fails)
    result, events = run(spec, tmp_path / "out")
    assert result.end_reason.code == "out_of_memory"
    message = result.end_reason.message
    for part in ("weights", "gradients", "optimizer", "activations"):
        assert f"{part} 0.00 GB" in message
    assert "together" in message
    assert of(events, EventType.PHASE)[-1]["phase"] == "diagnosing"


def test_what_was_narrowed_stays_narrow_after_a_resume(spec, tmp_path, monkeypatch):
    small_memory(monkeypatch, 40)
    reporter = StopAt(5)
    _, events = run(spec, tmp_path / "out", reporter=reporter, stop=reporter.stop)
    assert warnings(events)
    result, events = run(spec, tmp_path / "out")
    assert result.state == "succeeded"
    assert warnings(events) == []


def test_an_evaluation_goes_on_in_halves(spec, pairs_file, tmp_path, monkeypatch):
    spec["evaluation"] = {"datasets": [f"file:{pairs_file}"], "metrics": ["ndcg@10"]}
    expected, _ = run(spec, tmp_path / "plain")
    small_memory(monkeypatch, 40)
    result, _ = run({**spec, "micro_batch_tokens": 64, "loss": {"cached": True}}, tmp_path / "small")
    assert result.state == "succeeded", result.end_reason
    assert result.metrics["baseline"] == expected.metrics["baseline"]


def test_an_evaluation_without_memory_for_one_text_says_so(spec, pairs_file, tmp_path, monkeypatch):
    spec["evaluation"] = {"datasets": [f"file:{pairs_file}"], "metrics": ["ndcg@10"]}
    small_memory(monkeypatch, 2)
    result, _ = run(spec, tmp_path / "out")
    assert result.end_reason.code == "out_of_memory"
    assert "a single text of" in result.end_reason.message


def test_a_step_without_numbers_is_left_out(spec, tmp_path, monkeypatch):
    poison(monkeypatch, {4})
    result, events = run(spec, tmp_path / "out")
    assert result.state == "succeeded", result.end_reason
    [told] = warnings(events)
    assert told.startswith("Step 4 was left out: gradient of ")
    assert "NaN" in told
    assert all(bool(torch.isfinite(tensor).all()) for tensor in weights(tmp_path / "out").values())
    assert len(losses(events)) == 16


def test_a_step_that_overflows_in_bf16_is_done_again_in_float32(spec, tmp_path, monkeypatch):
    spec |= {"precision": "bf16"}
    poison(monkeypatch, {4}, only_bf16=True)
    result, events = run(spec, tmp_path / "out")
    assert result.state == "succeeded", result.end_reason
    [told] = warnings(events)
    assert told.startswith("Step 4 was done again in float32: in bf16 gradient of ")
    assert all(value == value and value > 0 for value in losses(events))


@pytest.fixture
def scaled(monkeypatch):
    """As in float16 on a GPU, on a CPU: a scaler before whom bfloat16 stands for float16."""
    begin = PairTrainer._inner_training_loop
    scalers = []

    def with_scaler(self, *arguments, **options):
        self.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        # What accelerate asks before it unscales.
        monkeypatch.setattr(type(self.accelerator), "mixed_precision", property(lambda _: "fp16"))
        scalers.append(self.accelerator.scaler)
        return begin(self, *arguments, **options)

    monkeypatch.setattr(PairTrainer, "_inner_training_loop", with_scaler)
    return scalers


def test_a_step_that_overflows_in_fp16_is_done_again_without_it(spec, tmp_path, monkeypatch, scaled):
    spec |= {"precision": "bf16"}
    poison(monkeypatch, {4}, only_bf16=True)
    result, events = run(spec, tmp_path / "out")
    assert result.state == "succeeded", result.end_reason
    [told] = warnings(events)
    assert told.startswith("Step 4 was done again in float32: in fp16 gradient of ")
    assert "; embeddings [" in told
    assert all(value == value and value > 0 for value in losses(events))
    assert scaled[0].get_scale() == 512.0  # half of what was too much
    # The update is that of float32, of gradients that are not scaled.
    norms = [data["values"]["grad_norm"] for data in of(events, EventType.METRIC) if "loss" in data["values"]]
    assert max(norms) < 100


def test_a_step_without_numbers_in_fp16_and_float32_is_left_out(spec, tmp_path, monkeypatch, scaled):
    spec |= {"precision": "bf16"}
    poison(monkeypatch, {4, 5, 6})  # the step, its description, its second try
    result, events = run(spec, tmp_path / "out")
    assert result.state == "succeeded", result.end_reason
    [told] = warnings(events)
    assert told.startswith("Step 4 was left out: gradient of ")
    assert "embeddings" in told
    assert "NaN" in told
    assert all(bool(torch.isfinite(tensor).all()) for tensor in weights(tmp_path / "out").values())


def starved_step(monkeypatch, fails: set[int], *, halfway: bool = False) -> list[int]:
    """An optimizer that has too little memory at these calls; ``halfway``: after one parameter."""
    step, calls = torch.optim.AdamW.step, []

    def short(self, *arguments, **options):
        calls.append(1)
        if len(calls) in fails:
            if halfway:
                groups = self.param_groups
                self.param_groups = [{**groups[0], "params": groups[0]["params"][:1]}]
                step(self, *arguments, **options)
                self.param_groups = groups
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate the optimizer's state")
        return step(self, *arguments, **options)

    monkeypatch.setattr(torch.optim.AdamW, "step", short)
    return calls


def test_the_optimizers_step_is_tried_again_when_memory_was_freed(spec, tmp_path, monkeypatch):
    run(spec, tmp_path / "plain")
    calls = starved_step(monkeypatch, {1, 9})
    result, events = run(spec, tmp_path / "short")
    assert result.state == "succeeded", result.end_reason
    assert len(calls) == 18
    told = warnings(events)
    assert [sentence.partition(":")[0] for sentence in told] == [
        "Out of memory in the optimizer's step 1",
        "Out of memory in the optimizer's step 8",
    ]
    equal(tmp_path / "plain", tmp_path / "short", 0)


@pytest.mark.parametrize("fails", [1, 2, 3, 4])
def test_a_step_that_fails_while_it_makes_its_state_is_begun_anew(monkeypatch, fails):
    """Adam allocates parameter by parameter, moment by moment: what was begun must not be taken for whole."""

    def steps(broken: bool) -> list[torch.Tensor]:
        parameters = [torch.nn.Parameter(torch.full((3,), float(number))) for number in (1, 2)]
        optimizer = torch.optim.AdamW(parameters, lr=0.1, fused=True)
        told = []
        free_memory_in_step(optimizer, told.append)
        zeros, calls = torch.zeros_like, []

        def short(*arguments, **options):
            calls.append(1)
            if broken and len(calls) == fails:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate a moment")
            return zeros(*arguments, **options)

        monkeypatch.setattr(torch, "zeros_like", short)
        for _ in range(3):
            for parameter in parameters:
                parameter.grad = torch.ones(3)
            optimizer.step()
        monkeypatch.setattr(torch, "zeros_like", zeros)
        assert len(told) == broken
        return [parameter.detach() for parameter in parameters]

    assert all(torch.equal(one, two) for one, two in zip(steps(False), steps(True), strict=True))


def test_an_optimizer_that_counts_no_steps_is_not_tried_again(monkeypatch):
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    step = torch.optim.SGD.step

    def short(self, *arguments, **options):
        step(self, *arguments, **options)
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(torch.optim.SGD, "step", short)
    free_memory_in_step(optimizer, lambda _: None)
    parameter.grad = torch.ones(3)
    with pytest.raises(OutOfMemory, match="broke off halfway"):
        optimizer.step()
    assert torch.allclose(parameter.detach(), torch.full((3,), 0.9))  # once


def test_an_update_in_fp16_that_does_not_fit_in_float32_is_left_out(spec, tmp_path, monkeypatch, scaled):
    spec |= {"precision": "bf16"}
    poison(monkeypatch, {4}, only_bf16=True)
    again = PairTrainer._plain_forward

    def short(self, model):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate twice as much")

    monkeypatch.setattr(PairTrainer, "_plain_forward", short)
    result, events = run(spec, tmp_path / "out")
    monkeypatch.setattr(PairTrainer, "_plain_forward", again)
    assert result.state == "succeeded", result.end_reason
    [told] = warnings(events)
    assert told.startswith("Step 4 was left out: in fp16 gradient of ")
    assert told.endswith("float32 needs more memory.")
    assert scaled[0].get_scale() == 512.0  # as after any step that it skips


@pytest.mark.parametrize(
    ("fails", "halfway", "words"),
    [({1, 2}, False, "for the optimizer's step."), ({3}, True, "which broke off halfway")],
)
def test_an_optimizer_without_memory_ends_with_what_would_fit(
    spec, tmp_path, monkeypatch, fails, halfway, words
):
    starved_step(monkeypatch, fails, halfway=halfway)
    result, _ = run(spec, tmp_path / "out")
    assert result.end_reason.code == "out_of_memory"
    assert words in result.end_reason.message
    assert "Measured on the CPU with 1 text of" in result.end_reason.message
    assert "optimizer: adamw_8bit (" in result.end_reason.message


def test_three_steps_in_a_row_end_training_with_the_tensor(spec, tmp_path, monkeypatch):
    poison(monkeypatch, {4, 5, 6})
    result, events = run(spec, tmp_path / "out")
    assert result.end_reason.code == "diverged"
    assert "3 steps in a row, up to step 6" in result.end_reason.message
    assert "gradient of " in result.end_reason.message
    assert len(warnings(events)) == 2


def test_weights_that_are_no_numbers_end_training_at_once(spec, tmp_path, monkeypatch):
    """Leaving steps out would not mend them."""
    forward = SentenceTransformer.forward
    calls = []

    def corrupted(self, *arguments, **options):
        calls.append(1)
        if len(calls) == 10:
            next(self.parameters()).data[5] = float("nan")
        return forward(self, *arguments, **options)

    monkeypatch.setattr(SentenceTransformer, "forward", corrupted)
    result, events = run(spec | {"micro_batch_tokens": 64}, tmp_path / "out")
    assert result.end_reason.code == "diverged"
    assert "the weights are no numbers any more. weight " in result.end_reason.message
    assert "32 NaN" in result.end_reason.message
    assert warnings(events) == []


def test_a_gradient_that_overflows_does_not_reach_the_weights(spec, tmp_path, monkeypatch):
    forward = MultipleNegativesRanking.forward
    seen = []

    def blow_up(self, similarities, *arguments):
        seen.append(1)
        return forward(self, similarities, *arguments) * (1e38 if len(seen) == 3 else 1)

    monkeypatch.setattr(MultipleNegativesRanking, "forward", blow_up)
    result, events = run(spec | {"optimizer": "sgd", "max_gradient_norm": 0}, tmp_path / "out")
    assert result.state == "succeeded"
    [told] = warnings(events)
    assert told.startswith("Step 3 was left out: ")


def test_micro_batches_are_cut_without_changing_their_order():
    ids = torch.arange(40).reshape(5, 8)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    pieces = split_micro_batches([batch], 16)
    assert [len(piece["input_ids"]) for piece in pieces] == [2, 2, 1]
    assert torch.equal(torch.cat([piece["input_ids"] for piece in pieces]), ids)
    assert [len(piece["input_ids"]) for piece in split_micro_batches([batch], 4)] == [1] * 5


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried"
            ),
            True,
        ),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (MemoryError(), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_counts_as_out_of_memory(error, memory):
    assert is_out_of_memory(error) is memory


def test_a_description_has_the_numbers():
    tensor = torch.tensor([1.0, 3.0, float("nan"), float("inf")])
    assert describe("x", tensor) == (
        "x [4]: 1 NaN, 1 infinite of 4; the finite ones: mean 2, std 1, min 1, max 3"
    )
    assert "no finite number" in describe("x", torch.tensor([float("nan")]))


def test_the_report_of_a_job_lists_its_recoveries(spec, tmp_path, monkeypatch):
    small_memory(monkeypatch, 40)
    run(spec, tmp_path / "out")
    report = json.loads((tmp_path / "out" / "report" / "report.json").read_text())
    assert report["cached"] is True
    assert report["micro_batch_tokens"] <= 40
