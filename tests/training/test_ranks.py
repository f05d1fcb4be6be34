"""Several processes that share every batch: the same training as by one, and no process left behind."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.engine.batching import Share
from core.engine.micro_batches import is_out_of_memory
from core.engine.ranks import Ranks, ShortElsewhere
from core.process.local import run_local
from tests.faults.service import until
from tests.training.failing import small_memory
from tests.training.processes import REPOSITORY, helpers, make_spec, sabotage, start_job
from tests.training.running import StopAt, equal, run, same_losses, warnings, weights


@given(count=st.integers(1, 60), size=st.integers(1, 8))
def test_dealt_texts_are_found_again_behind_each_other(count, size):
    texts = np.random.default_rng(count).permutation(count)
    dealt = [Share(rank, size).deal(texts) for rank in range(size)]
    assert len({len(mine) for mine, _ in dealt}) == 1
    together = np.concatenate([mine for mine, _ in dealt])
    for _, places in dealt:
        assert (together[places] == texts).all()
    assert len(together) < count + size


def test_alone_nothing_is_asked_of_anybody():
    alone, embeddings = Ranks(), torch.ones(3, 2)
    assert alone.gather(embeddings) is embeddings
    assert alone.all_reduce_max([3]) == [3]
    assert alone.broadcast_from_rank0(lambda: "made") == "made"
    alone.meet(failed=True)
    assert is_out_of_memory(ShortElsewhere())


@pytest.mark.parametrize("cached", [False, True])
def test_two_processes_train_as_one(cached, uneven_rows, steady, tmp_path):
    fields = {
        "gradient_accumulation_steps": 2,
        "loss": {
            "cached": cached,
            "symmetric": True,
            "guide": {"model": f"file:{steady}"} if cached else None,
        },
        "evaluation": {
            "holdout": 0.2,
            "metrics": ["ndcg@10"],
            "every_steps": 1,
            "early_stopping": {"metric": "ndcg@10", "patience": 9},
        },
    }
    spec = make_spec(uneven_rows, steady, **fields)
    if not cached:
        dry, _ = run({**spec, "dry_run": True}, tmp_path / "dry", processes=2)
        assert dry.metrics["estimate"]["rows"] < 45
    alone, expected = run(spec, tmp_path / "one")
    shared, events = run(spec, tmp_path / "two", processes=2)
    assert (alone.state, shared.state) == ("succeeded", "succeeded"), shared.end_reason
    assert same_losses(events, expected)
    equal(tmp_path / "one", tmp_path / "two")
    for when in ("baseline", "finetuned"):
        one, two = (result.metrics[when]["rows-holdout"]["ndcg@10"] for result in (alone, shared))
        assert two == pytest.approx(one, abs=0.05), when
        assert one > 0
    assert json.loads((tmp_path / "two/report/report.json").read_text())["processes"] == 2
    until(lambda: not helpers(), 10, "no helper is left")


@pytest.mark.slow
def test_stopped_and_resumed_they_end_as_if_never_stopped(uneven_rows, tiny_model, tmp_path):
    """With dropout: each process draws its own."""
    fields = {"checkpoint": {"every_steps": 2, "every_seconds": None}, "data_loader_workers": 1}
    spec = make_spec(uneven_rows, tiny_model, **fields)
    run(spec, tmp_path / "whole", processes=2)
    reporter = StopAt(3)
    stopped = run_local(spec, tmp_path / "out", reporter, stop=reporter.stop, processes=2)
    assert stopped.state == "cancelled"
    until(lambda: not helpers(), 10, "no helper is left")
    result, _ = run(spec, tmp_path / "out", processes=2)
    assert result.state == "succeeded"
    one, two = weights(tmp_path / "whole"), weights(tmp_path / "out")
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_memory_short_in_the_first_narrows_all(uneven_rows, steady, tmp_path, monkeypatch):
    spec = make_spec(uneven_rows, steady)
    _, expected = run(spec, tmp_path / "plain")
    small_memory(monkeypatch, 60)
    result, events = run(spec, tmp_path / "small", processes=2)
    assert result.state == "succeeded", result.end_reason
    assert "gradient caching" in warnings(events)[0]
    assert same_losses(events, expected)
    equal(tmp_path / "plain", tmp_path / "small")


def test_memory_short_in_a_helper_narrows_all(uneven_rows, steady, tmp_path, monkeypatch):
    sabotage(
        tmp_path,
        monkeypatch,
        """
        import torch
        from core.engine import encoding
        forward = encoding._forward
        def limited(how, model, micro_batch, words):
            if micro_batch["input_ids"].numel() > 60:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return forward(how, model, micro_batch, words)
        encoding._forward = limited
        """,
    )
    spec = make_spec(uneven_rows, steady)
    _, expected = run(spec, tmp_path / "plain")
    result, events = run(spec, tmp_path / "small", processes=2)
    assert result.state == "succeeded", result.end_reason
    assert "another GPU" in warnings(events)[0]
    assert same_losses(events, expected)
    equal(tmp_path / "plain", tmp_path / "small")


def test_nobody_outlives_a_killed_first_rank(uneven_rows, steady, tmp_path):
    """Neither the helpers nor their data loaders."""
    spec = make_spec(uneven_rows, steady, data_loader_workers=1, epochs=1000)
    job = start_job(spec, tmp_path)
    until(
        lambda: (tmp_path / "events").exists() and '"loss"' in (tmp_path / "events").read_text(),
        100,
        "it trains",
    )
    assert len(helpers()) == 2
    meetings = {
        Path(helper.cmdline()[-1]).parent for helper in helpers() if "core.process.rank" in helper.cmdline()
    }
    job.kill()
    job.wait()
    until(lambda: not helpers(), 20, "all of them are gone")
    assert not any(place.exists() for place in meetings)


def test_a_killed_helper_is_named_and_the_job_goes_on(uneven_rows, steady, tmp_path):
    """By a signal, as where memory is short: the reason says so, and the same command goes on."""
    spec = make_spec(uneven_rows, steady, epochs=300, checkpoint={"every_steps": 5, "every_seconds": None})
    job = start_job(spec, tmp_path)
    until(
        lambda: any((tmp_path / "job").glob("checkpoints/attempt-*/checkpoint-*/manifest.json")),
        100,
        "a save",
    )
    [helper] = helpers()
    helper.kill()
    assert job.wait(60) == 1
    ended = json.loads((tmp_path / "job/result.json").read_text())["end_reason"]
    assert ended["code"] == "process_died"
    assert "Process 2 of the job was killed by SIGKILL" in ended["message"]
    until(lambda: not helpers(), 10, "no helper is left")


def test_a_helper_that_dies_ends_the_job(uneven_rows, steady, tmp_path, monkeypatch):
    """Not by waiting for it: the job fails, and is tried again by whoever runs it."""
    sabotage(
        tmp_path,
        monkeypatch,
        """
        import os
        from core.engine import encoding
        encoding._forward = lambda *_: os._exit(7)
        """,
    )
    job = start_job(make_spec(uneven_rows, steady), tmp_path)
    assert job.wait(120) == 1
    ended = json.loads((tmp_path / "job/result.json").read_text())["end_reason"]
    assert ended["code"] == "crashed"
    assert "Process 2 of the job has ended with status 7" in ended["message"]
    until(lambda: not helpers(), 10, "no helper is left")


def test_a_helper_that_dies_on_its_way_out_takes_no_result_along(uneven_rows, steady, tmp_path, monkeypatch):
    """The first rank has published: what it needed the others for is done."""
    sabotage(
        tmp_path,
        monkeypatch,
        """
        import os
        from core.kinds import train
        whole = train._train
        def part(*arguments):
            whole(*arguments)
            os.abort()
        train._train = part
        """,
    )
    result, _ = run(make_spec(uneven_rows, steady, epochs=1), tmp_path / "out", processes=2)
    assert result.state == "succeeded", result.end_reason
    assert weights(tmp_path / "out")
    until(lambda: not helpers(), 10, "no helper is left")


def test_a_helper_ends_without_taking_its_interpreter_down(tmp_path, monkeypatch):
    """Threads of gloo that are still there would abort it: here what runs at an interpreter's end does."""
    sabotage(tmp_path, monkeypatch, "import atexit, os\natexit.register(os.abort)")
    arguments = [str(tmp_path), "1", str(tmp_path / "meeting")]
    helper = subprocess.Popen(
        [sys.executable, "-m", "core.process.rank", *arguments],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,  # kept open: its end would end the helper
        stderr=subprocess.PIPE,
    )
    assert helper.wait(60) == 1
    assert helper.stderr is not None
    assert b"request.json" in helper.stderr.read()
