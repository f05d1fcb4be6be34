"""Early stopping a dataset: the one that no longer rises is trained on less, and a resume knows."""

import json

import pytest
import torch

from core.jobs.events import EventType
from core.ranking.scores import Scores
from core.training import judging as room
from tests.tiny import WORDS
from tests.training.running import StopAt, of, run, weights


@pytest.fixture
def spec(tiny_model, pairs_file, tmp_path) -> dict:
    other = tmp_path / "other.jsonl"
    other.write_text(
        "".join(
            json.dumps({"query": f"{word} {index}", "positive": f"the {word} of {index}"}) + "\n"
            for index, word in enumerate(WORDS * 2)
        )
    )
    sets = {"one": f"file:{pairs_file}", "two": f"file:{other}"}
    return {
        "kind": "train",
        "base_model": f"file:{tiny_model}",
        "dataset": [{"ref": ref, "name": name} for name, ref in sets.items()],
        "batch_size": 4,
        "learning_rate": 2e-3,
        "max_steps": 40,
        "logging_steps": 1,
        "checkpoint": {"every_steps": 7, "every_seconds": None},
        "evaluation": {
            "datasets": [{"ref": ref, "name": name} for name, ref in sets.items()],
            "metrics": ["ndcg@10"],
            "baseline": False,
            "every_steps": 5,
            "early_stopping": {"patience": 2, "per_dataset": True, "stalled": "stop"},
        },
    }


@pytest.fixture
def scores(monkeypatch):
    """Set one never rises, set two always does. Evaluations go by turns: one, two, one, two, ..."""
    asked = {"count": 0}

    def judge(_rank, _score, dataset, _metrics):
        asked["count"] += 1
        rises = len(dataset.queries) == 2 * len(WORDS)
        return Scores({"ndcg@10": asked["count"] / 1000 if rises else 0.5})

    monkeypatch.setattr(room, "judge_by", judge)
    return asked


def test_the_stalled_set_is_trained_on_no_more(spec, scores, tmp_path):
    result, events = run(spec, tmp_path / "out")
    assert result.state == "succeeded", result.end_reason
    told = [data["message"] for data in of(events, EventType.NOTICE)]
    assert "one is trained on no more after step 15: its ndcg@10 no longer rises." in told
    assert not any("Early stopping" in sentence for sentence in told)
    steps = [data["step"] for data in of(events, EventType.METRIC) if "loss" in data["values"]]
    assert steps[-1] == 40


def test_a_resume_after_the_change_ends_the_same(spec, scores, tmp_path):
    run(spec, tmp_path / "whole")
    for stop_at in (17, 25):
        scores["count"] = 0
        out = tmp_path / f"parts-{stop_at}"
        reporter = StopAt(stop_at)
        result, _ = run(spec, out, reporter=reporter, stop=reporter.stop)
        assert result.state == "cancelled"
        result, _ = run(spec, out)
        assert result.state == "succeeded", result.end_reason
        whole, parts = weights(tmp_path / "whole"), weights(out)
        assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_down_weighting_halves_again_and_again(spec, scores, tmp_path):
    spec["evaluation"]["early_stopping"]["stalled"] = "down_weight"
    result, events = run(spec, tmp_path / "out")
    assert result.state == "succeeded", result.end_reason
    told = [data["message"] for data in of(events, EventType.NOTICE)]
    assert [sentence for sentence in told if "half as often" in sentence] == [
        f"one is trained on half as often after step {step}: its ndcg@10 no longer rises."
        for step in (15, 25, 35)
    ]


def test_keep_is_the_default(spec, scores, tmp_path):
    del spec["evaluation"]["early_stopping"]["stalled"]
    _, events = run(spec, tmp_path / "out")
    told = [data["message"] for data in of(events, EventType.NOTICE)]
    assert not any("trained on" in line and "The saved model reads" not in line for line in told)
