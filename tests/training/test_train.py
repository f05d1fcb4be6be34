"""Training jobs without a service, on a tiny real model."""

import functools
import importlib.machinery
import json
import os
import shutil
import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from transformers import TrainerCallback

from core.engine import encoding
from core.engine.batching import Packing
from core.engine.losses import MultipleNegativesRanking
from core.errors import InvalidRequest
from core.families.family import family_of
from core.jobs.events import EventType
from core.jobs.protocol import RunResult
from core.spec import parse_spec
from core.training import arguments
from tests.tiny import WORDS
from tests.training.running import StopAt, of, run, weights


@pytest.fixture
def spec(tiny_model: Path, pairs_file: Path) -> dict:
    return {
        "kind": "train",
        "base_model": f"file:{tiny_model}",
        "dataset": f"file:{pairs_file}",
        "batch_size": 8,
        "learning_rate": 2e-3,
        "epochs": 2,
        "evaluation": {"datasets": [{"ref": f"file:{pairs_file}", "name": "pairs"}], "metrics": ["ndcg@10"]},
    }


def test_a_job_from_spec_to_a_better_model(spec, tiny_model, tmp_path):
    result, events = run(spec, tmp_path / "out")
    assert (result.state, result.end_reason.code) == ("succeeded", "succeeded")
    before, after = (result.metrics[name]["pairs"]["ndcg@10"] for name in ("baseline", "finetuned"))
    assert after > before + 0.02
    model = SentenceTransformer(str(tmp_path / "out" / "model"))
    assert model.encode(["river"]).shape == (1, 32)
    changed = weights(tmp_path / "out")
    base = load_file(tiny_model / "model.safetensors")
    assert any(not torch.equal(changed[name], base[name]) for name in changed)
    phases = [data["phase"] for data in of(events, EventType.PHASE)]
    assert phases == [
        "starting",
        "loading",
        "preparing",
        "evaluating",
        "training",
        "evaluating",
        "publishing",
    ]
    named = {name for data in of(events, EventType.METRIC) for name in data["values"]}
    assert {
        "loss",
        "grad_norm",
        "learning_rate",
        "samples_per_second",
        "tokens_per_second",
        "ndcg@10",
    } == named
    assert of(events, EventType.MEMORY)[-1]["rss_bytes"] > 0
    assert of(events, EventType.PROGRESS)[-1]["step"] == 16
    assert RunResult.model_validate_json((tmp_path / "out" / "result.json").read_bytes()) == result
    report = tmp_path / "out" / "report"
    made = {"report.json", "report.md", "report.html", "curves.png", "lengths.png"}
    assert made | {"tensorboard", "manifest.json"} == {path.name for path in report.iterdir()}
    assert json.loads((report / "report.json").read_text())["finetuned"]["pairs"]["ndcg@10"] == after
    assert not (tmp_path / "out" / "checkpoints").exists()


def test_the_same_seed_gives_the_same_model(spec, tmp_path):
    spec["evaluation"] = {}
    for name in ("one", "two"):
        run(spec, tmp_path / name)
    first, second = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("stop_at", [3, 11, 16])
def test_a_stopped_job_goes_on_and_ends_bit_identical(spec, tmp_path, stop_at):
    spec["evaluation"] = {}
    run(spec, tmp_path / "whole")
    reporter = StopAt(stop_at)
    result, events = run(spec, tmp_path / "parts", reporter=reporter, stop=reporter.stop)
    assert (result.state, result.end_reason.code) == ("cancelled", "cancelled")
    [saved] = of(events, EventType.CHECKPOINT)
    stopped = saved["step"]
    assert stopped in (stop_at, stop_at + 1)
    result, events = run(spec, tmp_path / "parts")
    assert result.state == "succeeded"
    steps = [data["step"] for data in of(events, EventType.METRIC)]
    assert steps == list(range(stopped + 1, 17))
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_an_evaluation_that_a_stop_came_before_is_made_up(spec, tmp_path):
    spec["evaluation"] |= {"every_steps": 1}
    run(spec, tmp_path / "whole")
    reporter = StopAt(5)
    run(spec, tmp_path / "parts", reporter=reporter, stop=reporter.stop)
    run(spec, tmp_path / "parts")
    whole, parts = (
        json.loads((tmp_path / name / "report" / "report.json").read_text())["evaluations"]
        for name in ("whole", "parts")
    )
    assert [entry["step"] for entry in parts] == list(range(17))
    assert whole == parts


def test_a_torn_checkpoint_is_passed_over(spec, tmp_path):
    spec |= {"evaluation": {}, "checkpoint": {"every_steps": 4, "keep": 2}}
    reporter = StopAt(14)
    run(spec, tmp_path / "out", reporter=reporter, stop=reporter.stop)
    found = sorted(path.name for path in (tmp_path / "out" / "checkpoints").glob("*/checkpoint-*"))
    assert found == ["checkpoint-12", "checkpoint-15"]
    torn = tmp_path / "out" / "checkpoints" / "attempt-1" / "checkpoint-15" / "optimizer.pt"
    torn.write_bytes(torn.read_bytes()[:100])
    result, events = run(spec, tmp_path / "out")
    assert result.state == "succeeded"
    assert of(events, EventType.METRIC)[0]["step"] == 13


def test_early_stopping_keeps_the_best_weights(spec, tmp_path):
    spec |= {"learning_rate": 5.0, "epochs": 10}  # so high that the model can only get worse
    spec["evaluation"] |= {"every_steps": 2, "early_stopping": {"metric": "ndcg@10", "patience": 2}}
    result, events = run(spec, tmp_path / "out")
    assert result.state == "succeeded"
    assert any("Early stopping" in data["message"] for data in of(events, EventType.NOTICE))
    assert of(events, EventType.PROGRESS)[-1]["step"] < 20
    report = json.loads((tmp_path / "out" / "report" / "report.json").read_text())
    scores = {entry["step"]: entry["scores"]["pairs"]["ndcg@10"] for entry in report["evaluations"]}
    assert len(scores) == len(report["evaluations"])
    assert scores[report["best_step"]] == max(scores.values()) == report["finetuned"]["pairs"]["ndcg@10"]
    if report["best_step"] == 0:
        base = SentenceTransformer(spec["base_model"].removeprefix("file:"))
        kept = SentenceTransformer(str(tmp_path / "out" / "model"))
        assert torch.equal(torch.tensor(base.encode("river")), torch.tensor(kept.encode("river")))


def test_a_loss_that_is_no_number_fails_with_a_reason(spec, tmp_path, monkeypatch):
    forward = MultipleNegativesRanking.forward
    monkeypatch.setattr(
        MultipleNegativesRanking, "forward", lambda *arguments: forward(*arguments) * float("nan")
    )
    result, _ = run(spec | {"evaluation": {}}, tmp_path / "out")
    assert (result.state, result.end_reason.code) == ("failed", "diverged")


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"base_model": "file:/nowhere"}, "bad_model", "no such folder"),
        ({"dataset": "file:/nowhere.jsonl"}, "bad_data", "no such file"),
        ({"lengths": {"document": 4096}}, "bad_spec", "at most 128"),
        ({"precision": "fp16"}, "bad_spec", "fp16 needs a GPU"),
        ({"base_model": "model:art_1"}, "bad_spec", "inside the service"),
        ({"matryoshka": {"dimensions": [32]}}, "bad_spec", "each must be smaller"),
        ({"loss": {"name": "margin_mse"}}, "bad_data", "64 of 64 rows have none"),
    ],
)
def test_what_the_user_can_mend_is_said_in_a_sentence(spec, tmp_path, change, code, words):
    result, _ = run(spec | {"evaluation": {}} | change, tmp_path / "out")
    assert (result.state, result.end_reason.code) == ("failed", code)
    assert words in result.end_reason.message
    assert not (tmp_path / "out" / "model").exists()


def test_a_hub_model_without_a_hub(spec, tmp_path):
    result, _ = run(spec | {"base_model": "nobody/nothing"}, tmp_path / "out", offline=True)
    assert (result.state, result.end_reason.code) == ("failed", "bad_model")
    assert "REASON_OFFLINE" in result.end_reason.message


def test_pickles_and_foreign_code_are_refused(spec, tiny_model, tmp_path):
    pickled, foreign = tmp_path / "pickled", tmp_path / "foreign"
    pickled.mkdir()
    (pickled / "pytorch_model.bin").write_bytes(b"x")
    foreign.mkdir()
    (foreign / "model.safetensors").write_bytes(b"x")
    (foreign / "config.json").write_text('{"auto_map": {"AutoModel": "evil.Model"}}')
    for folder, words in ((pickled, "pickle"), (foreign, "REASON_TRUST_REMOTE_CODE")):
        result, _ = run(spec | {"base_model": f"file:{folder}"}, tmp_path / f"out-{folder.name}")
        assert result.end_reason.code == "bad_model"
        assert words in result.end_reason.message


def test_rejects_are_counted_told_and_kept(spec, pairs_file, tmp_path):
    spoiled = tmp_path / "spoiled.jsonl"
    spoiled.write_text(pairs_file.read_text() + "{broken\n")
    result, _ = run(spec | {"dataset": f"file:{spoiled}", "evaluation": {}}, tmp_path / "strict")
    assert (result.end_reason.code, "line 65" in result.end_reason.message) == ("bad_data", True)
    spec |= {"dataset": f"file:{spoiled}", "evaluation": {}, "max_reject_share": 0.1}
    result, events = run(spec, tmp_path / "lenient")
    assert result.state == "succeeded"
    assert any("line 65" in data["message"] for data in of(events, EventType.NOTICE))
    [reject] = (tmp_path / "lenient" / "report" / "rejects.jsonl").read_text().splitlines()
    assert json.loads(reject)["line"] == 65


def test_one_pair_alone_cannot_be_learned_from(spec, tmp_path):
    (tmp_path / "one.jsonl").write_text('{"query": "river", "positive": "mountain"}\n')
    result, _ = run(spec | {"dataset": f"file:{tmp_path / 'one.jsonl'}", "evaluation": {}}, tmp_path / "out")
    assert result.end_reason.code == "bad_data"


@pytest.mark.parametrize(
    "change",
    [
        {"precision": "bf16"},
        {"optimizer": "adamw_8bit"},
        {"gradient_checkpointing": True},
        {"gradient_accumulation_steps": 3},
        {"loss": {"cached": True, "symmetric": True}, "micro_batch_tokens": 64},
        {"matryoshka": {"dimensions": [16, 8]}},
        {"max_steps": 5, "scheduler": "cosine"},
        {"data_loader_workers": 1},
        {"sample": 20},
    ],
)
def test_the_options_train(spec, tmp_path, change):
    result, events = run(spec | {"evaluation": {}} | change, tmp_path / "out")
    assert result.state == "succeeded", result.end_reason
    steps = {"gradient_accumulation_steps": 6, "max_steps": 5, "sample": 6}.get(next(iter(change)), 16)
    assert of(events, EventType.PROGRESS)[-1]["step"] == steps


def test_several_datasets_stop_and_go_on_bit_identical(spec, pairs_file, tmp_path):
    other = tmp_path / "other.jsonl"
    rows = [{"query": f"where is {word}", "positive": f"{word} is here {n}"} for n, word in enumerate(WORDS)]
    other.write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec |= {
        "evaluation": {},
        "dataset": [{"ref": f"file:{pairs_file}", "weight": 1}, {"ref": f"file:{other}", "weight": 2}],
    }
    result, events = run(spec, tmp_path / "whole")
    assert result.state == "succeeded", result.end_reason
    told = [data["message"] for data in of(events, EventType.NOTICE) if "Batches an epoch" in data["message"]]
    assert "pairs " in told[0]
    assert "other " in told[0]
    reporter = StopAt(15)
    run(spec, tmp_path / "parts", reporter=reporter, stop=reporter.stop)
    result, _ = run(spec, tmp_path / "parts")
    assert result.state == "succeeded"
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


@pytest.mark.parametrize("name", ["margin_mse", "distillation"])
def test_a_teacher_is_learned_from(spec, tiny_model, tmp_path, name):
    path = tmp_path / "scored.jsonl"
    rows = [
        {
            "query": f"what is {WORDS[index % len(WORDS)]} {index}",
            "positive": f"{WORDS[index % len(WORDS)]} is document {index}",
            "negatives": [f"{WORDS[(index * 7 + 3) % len(WORDS)]} {index}"],
            "scores": [8.0, 2.0],
        }
        for index in range(48)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec |= {"evaluation": {}, "dataset": f"file:{path}", "loss": {"name": name}}
    result, events = run(spec, tmp_path / "out")
    assert result.state == "succeeded", result.end_reason
    losses = [data["values"]["loss"] for data in of(events, EventType.METRIC)]
    assert losses[-1] < losses[0]


def test_a_guide_masks_false_negatives(spec, tiny_model, tmp_path):
    """Masked negatives only take terms out of the denominator: the first loss is smaller."""
    first = {}
    for name, loss in (("plain", {}), ("guided", {"guide": {"model": f"file:{tiny_model}", "margin": 0.5}})):
        _, events = run(spec | {"evaluation": {}, "max_steps": 1, "loss": loss}, tmp_path / name)
        first[name] = of(events, EventType.METRIC)[0]["values"]["loss"]
    assert first["guided"] < first["plain"]


def test_a_folder_of_outputs_is_not_lost_by_accident(spec, tmp_path):
    spec["evaluation"] = {}
    out = tmp_path / "out"
    run(spec | {"max_steps": 1}, out)
    with pytest.raises(InvalidRequest, match="finished job"):
        run(spec | {"max_steps": 1}, out)
    assert run(spec | {"max_steps": 2}, out, overwrite=True)[0].state == "succeeded"
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(InvalidRequest, match="not made by reason run"):
            run(spec, mine, overwrite=overwrite)
    assert (mine / "thesis.txt").exists()


def test_another_job_s_checkpoints_are_not_mixed_in(spec, tmp_path):
    reporter = StopAt(2)
    spec["evaluation"] = {}
    run(spec, tmp_path / "out", reporter=reporter, stop=reporter.stop)
    with pytest.raises(InvalidRequest, match="another job"):
        run(spec | {"seed": 1}, tmp_path / "out")


def test_a_dry_run_trains_nothing_and_tells_what_it_would_take(spec, tmp_path):
    result, events = run({**spec, "dry_run": True}, tmp_path / "dry")
    assert result.state == "succeeded"
    assert set(result.outputs) == {"report"}
    told = result.metrics["estimate"]
    assert told["steps"] == 16
    report = json.loads((tmp_path / "dry" / "report" / "report.json").read_text())
    assert report["memory"] == told["memory"]
    assert told["memory"]["total"] == sum(size for name, size in told["memory"].items() if name != "total")
    assert not of(events, EventType.METRIC)
    run(spec, tmp_path / "real")
    tokens = json.loads((tmp_path / "real" / "report" / "report.json").read_text())["tokens"]
    assert told["tokens_per_step"] * told["steps"] == pytest.approx(tokens, rel=0.02)


def test_held_out_queries_are_evaluated_on_and_not_trained_on(spec, tmp_path):
    spec["evaluation"] = {"holdout": 0.25, "metrics": ["ndcg@10"], "baseline": True}
    result, events = run(spec, tmp_path / "out")
    assert result.state == "succeeded", result.end_reason
    rows = [json.loads(line) for line in Path(spec["dataset"].removeprefix("file:")).read_text().splitlines()]
    queries = {row["query"] for row in rows}
    report = json.loads((tmp_path / "out" / "report" / "report.json").read_text())
    kept_out = round(0.25 * len(queries))
    of_kept = len(rows) - report["rows"]
    assert kept_out <= of_kept < len(rows) / 2
    assert any(f"{kept_out} queries are kept out" in data["message"] for data in of(events, EventType.NOTICE))
    assert set(result.metrics["finetuned"]) == {"pairs-holdout"}
    spec["evaluation"] = {"holdout": 0.001}
    result, _ = run(spec, tmp_path / "none")
    assert result.end_reason.code == "bad_data"


@pytest.mark.parametrize(
    ("given", "one_length", "words"),
    [
        ({}, True, ["on a CPU compiled steps are not faster", "padded to one length"]),
        ({"padding": "dynamic"}, False, ["on a CPU compiled steps are not faster"]),
    ],
)
def test_compile_chooses_its_shapes_and_says_where_it_does_not_pay(spec, given, one_length, words):
    from core.training import prepare

    asked = parse_spec({**spec, "compile": True, **given})
    assert asked.pads_to_one_length is one_length
    assert not parse_spec(spec).pads_to_one_length
    told = []
    context = types.SimpleNamespace(notice=lambda message, level="info": told.append(message))
    prepare._tell_of_compilation(asked, context, "cpu", 1000)
    assert len(told) == len(words)
    assert all(word in sentence for word, sentence in zip(words, told, strict=True))
    told.clear()
    prepare._tell_of_compilation(asked, context, "cuda", 20)
    assert "20 steps may not make up for" in told[0]


def test_batches_travel_through_pinned_memory_without_blocking(spec, tiny_model, monkeypatch):
    """A stand-in for the pinned allocator, which needs a GPU: every tensor of a batch passes through it."""
    from accelerate.utils import send_to_device
    from torch.utils.data._utils.pin_memory import pin_memory

    from core.families.collator import Collator
    from tests.tiny import token_rows

    model = SentenceTransformer(str(tiny_model), device="cpu")
    reader = family_of("dense").make_reader(model, parse_spec(spec))
    texts = [
        {"query": f"a {word}", "positive": f"{word} is", "negatives": [], "scores": [1.0]} for word in WORDS
    ]
    rows = token_rows(model.tokenizer, texts, guide=model.tokenizer)
    guide = (reader.frame, 16, Packing(64))
    batch = Collator(reader, {"query": 16, "document": 16}, Packing(64), guide=guide)(rows)
    pinned, moved, to = [], [], torch.Tensor.to

    def pin(tensor, *_):
        pinned.append(tensor)
        return tensor.clone()

    def move(tensor, *arguments, **options):
        moved.append((tensor, options.get("non_blocking")))
        return to(tensor, *arguments, **options)

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    found = pin_memory(batch)
    tensors = [
        *(tensor for texts in (batch.texts, batch.guide) for part in texts.parts for tensor in part.values()),
        *(batch.texts.positions, batch.guide.positions, batch.owners, batch.teacher),
    ]
    assert len(pinned) == len(tensors) > 8
    assert {id(tensor) for tensor in pinned} == {id(tensor) for tensor in tensors}
    monkeypatch.setattr(torch.Tensor, "to", move)
    send_to_device(found, "cpu", non_blocking=True)
    assert len(moved) == len(tensors)
    assert all(asked is True for _, asked in moved)
    # And on a GPU both are asked for.
    made = arguments.training_arguments(
        parse_spec({**spec, "device": "cpu"}),
        Path("x"),
        job_id="x",
        steps=1,
        device="cpu",
        precision="fp32",
        trackers=[],
    )
    assert (made.dataloader_pin_memory, made.accelerator_config.non_blocking) == (False, False)


def test_batches_that_wait_are_settable(spec):
    asked = parse_spec({**spec, "data_loader_workers": 2, "prefetch_batches": 5})
    about = {"job_id": "x", "steps": 1, "device": "cpu", "precision": "fp32", "trackers": []}
    made = arguments.training_arguments(asked, Path("x"), **about)
    assert (made.dataloader_num_workers, made.dataloader_prefetch_factor) == (2, 5)
    assert arguments.first_free_batch(asked, "cpu", 10) == 10 + 3 + 2 * 5
    alone = arguments.training_arguments(parse_spec(spec), Path("x"), **about)
    assert alone.dataloader_prefetch_factor is None


def test_texts_that_are_all_cut_are_a_warning(spec, tmp_path):
    rows = tmp_path / "rows.jsonl"
    lines = [{"query": f"what is {word}", "positive": f"{word} is {' '.join(WORDS)}"} for word in WORDS]
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    spec |= {"dataset": f"file:{rows}", "lengths": {"document": 8, "query": 16}, "max_steps": 1}
    _, events = run(spec, tmp_path / "out")
    [told] = [
        data["message"]
        for data in of(events, EventType.NOTICE)
        if data["level"] == "warning" and "is cut" in data["message"]
    ]
    assert told.startswith("Every document is longer than the 8 tokens")


def test_micro_batches_of_so_many_texts(spec, tmp_path, monkeypatch):
    """Whatever their length, and with the same result."""
    sizes, forward = [], encoding._forward

    def noted(way, model, micro_batch, words):
        sizes.append(len(micro_batch["input_ids"]))
        return forward(way, model, micro_batch, words)

    monkeypatch.setattr(encoding, "_forward", noted)
    spec |= {"micro_batch_size": 3, "loss": {"cached": True}, "max_steps": 2, "evaluation": {}}
    result, _ = run(spec, tmp_path / "out")
    assert result.state == "succeeded", result.end_reason
    assert max(sizes) == 3
    assert sizes.count(3) > 0.6 * len(sizes)
    report = json.loads((tmp_path / "out" / "report" / "report.json").read_text())
    assert report["micro_batch_size"] == 3
    with pytest.raises(InvalidRequest):
        parse_spec({**spec, "micro_batch_tokens": 64})


def test_compile_goes_through_dynamo_and_changes_nothing(spec, tmp_path, monkeypatch):
    """With the eager backend: tracing, guards and all, without minutes of a C++ compiler."""
    spec |= {"evaluation": {}, "max_steps": 3}
    compiled = functools.partial(arguments.TrainingArguments, torch_compile_backend="eager")
    counters = torch._dynamo.utils.counters
    run({**spec, "padding": "fixed"}, tmp_path / "plain")  # the shapes decide what dropout draws
    counters.clear()
    run(spec, tmp_path / "again")
    assert counters["stats"]["unique_graphs"] == 0
    monkeypatch.setattr(arguments, "TrainingArguments", compiled)
    result, _ = run({**spec, "compile": True}, tmp_path / "compiled")
    assert result.state == "succeeded", result.end_reason
    assert counters["stats"]["unique_graphs"] > 0
    whole, compiled_weights = weights(tmp_path / "plain"), weights(tmp_path / "compiled")
    assert whole.keys() == compiled_weights.keys()
    assert all(torch.allclose(whole[name], compiled_weights[name], atol=1e-5) for name in whole)


def test_bf16_is_really_computed_in(spec, tmp_path, monkeypatch):
    spec |= {"evaluation": {}, "max_steps": 2}
    kinds = set()
    forward = encoding._forward

    def noting(how, model, micro_batch, words):
        linear = model[0].auto_model.encoder.layer[0].attention.self.query
        hook = linear.register_forward_hook(lambda _module, _input, output: kinds.add(output.dtype))
        try:
            return forward(how, model, micro_batch, words)
        finally:
            hook.remove()

    monkeypatch.setattr(encoding, "_forward", noting)
    for precision, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        kinds.clear()
        result, _ = run({**spec, "precision": precision}, tmp_path / precision)
        assert result.state == "succeeded", result.end_reason
        assert kinds == {kind}
        assert all(tensor.dtype == torch.float32 for tensor in weights(tmp_path / precision).values())


def test_a_tracker_that_is_not_there_is_said(spec, tmp_path):
    result, _ = run({**spec, "trackers": ["wandb"]}, tmp_path / "out")
    assert (result.state, result.end_reason.code) == ("failed", "bad_spec")
    assert "wandb is not installed" in result.end_reason.message


def test_a_tracker_gets_the_curve_and_the_scores(spec, tmp_path, monkeypatch):
    """The trainer's own integration, with a stand-in for the service that it reports to."""
    logged: list[dict] = []

    class Tracker(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **_):
            logged.append(logs)

    monkeypatch.setitem(sys.modules, "mlflow", types.ModuleType("mlflow"))
    sys.modules["mlflow"].__spec__ = importlib.machinery.ModuleSpec("mlflow", None)
    monkeypatch.setattr(
        transformers.trainer,
        "get_reporting_integration_callbacks",
        lambda names: [Tracker] if names == ["mlflow"] else [],
    )
    result, _ = run({**spec, "trackers": ["mlflow"], "max_steps": 3}, tmp_path / "out")
    assert result.state == "succeeded", result.end_reason
    assert sum("loss" in logs for logs in logged) == 3
    scores = [logs["eval/ndcg@10"] for logs in logged if "eval/ndcg@10" in logs]
    assert scores == [result.metrics[name]["pairs"]["ndcg@10"] for name in ("baseline", "finetuned")]


def test_the_length_that_was_trained_on_is_saved(spec, tmp_path):
    """The tiny model is set to 64 tokens and can take 128."""
    result, _ = run({**spec, "evaluation": {}, "max_steps": 1, "lengths": {"query": 128}}, tmp_path / "out")
    assert result.state == "succeeded", result.end_reason
    assert SentenceTransformer(str(tmp_path / "out" / "model")).max_seq_length == 128


def test_auto_lengths_stay_within_the_context_whatever_the_model_is_set_to(spec, tiny_model, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 100_000}))
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        "".join(
            json.dumps({"query": f"{word} {index}", "positive": " ".join(WORDS * 20) + f" {index}"}) + "\n"
            for index, word in enumerate(WORDS)
        )
    )
    spec |= {"base_model": f"file:{folder}", "dataset": f"file:{rows}", "evaluation": {}, "max_steps": 1}
    result, _ = run(spec, tmp_path / "out")
    assert result.state == "succeeded", result.end_reason
    assert SentenceTransformer(str(tmp_path / "out" / "model")).max_seq_length == 128


def test_a_corrected_spec_may_follow_one_that_saved_nothing(spec, tmp_path):
    spec["evaluation"] = {}
    result, _ = run({**spec, "lengths": {"document": 4096}}, tmp_path / "out")
    assert result.end_reason.code == "bad_spec"
    result, _ = run({**spec, "max_steps": 1}, tmp_path / "out")
    assert result.state == "succeeded", result.end_reason


def test_ctrl_c_saves_and_ends_with_loader_workers_too(spec, tmp_path):
    """A terminal sends it to the whole group."""
    job = """
import json, signal, sys
from pathlib import Path
from core.jobs.events import EventType
from core.runtime.context import StopSignal
from core.process.local import run_local, stop_on_interrupt
from core.runtime.reporter import RecordingReporter
class Tell(RecordingReporter):
    def emit(self, event):
        if event.type is EventType.METRIC:
            print("step", flush=True)
stop = StopSignal()
stop_on_interrupt(stop)
result = run_local(json.loads(sys.argv[1]), Path(sys.argv[2]), Tell(), stop=stop)
print(result.end_reason.code, flush=True)
"""
    spec |= {"evaluation": {}, "data_loader_workers": 2, "epochs": 500, "logging_steps": 1}
    process = subprocess.Popen(
        [sys.executable, "-c", job, json.dumps(spec), str(tmp_path / "out")],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "step\n"
        os.killpg(process.pid, signal.SIGINT)
        assert process.stdout.read().splitlines()[-1] == "cancelled"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
    assert list((tmp_path / "out" / "checkpoints").glob("attempt-*/checkpoint-*"))
