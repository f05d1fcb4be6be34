"""Trainings on pairs with labels and scores: what is learned, refused and said."""

import json

import pytest

from core.jobs.events import EventType
from tests.tiny import WORDS, make_cross_encoder
from tests.training.running import of, run


def pairs(path, score):
    """Forty pairs with one word in common, or none."""
    with path.open("w") as file:
        for index in range(40):
            same = index % 2
            other = WORDS[(index + (0 if same else 7)) % len(WORDS)]
            row = {
                "sentence1": f"what is {WORDS[index % len(WORDS)]}",
                "sentence2": f"{'the' if same else 'of'} {other}",
            }
            file.write(json.dumps({**row, **score(same), "topic": "words"}) + "\n")
    return f"file:{path}"


@pytest.fixture
def base(tiny_model):
    return {"kind": "train", "base_model": f"file:{tiny_model}", "batch_size": 8, "max_steps": 3}


@pytest.mark.parametrize("family", ["dense", "cross_encoder"])
@pytest.mark.parametrize("loss", ["cosent", "regression"])
def test_a_training_on_scores(base, tiny_model, tmp_path, family, loss):
    if family == "cross_encoder":
        base["base_model"] = f"file:{make_cross_encoder(tmp_path / 'model', tiny_model)}"
    dataset = pairs(tmp_path / "sts.jsonl", lambda same: {"score": 0.9 * same})
    spec = {**base, "family": family, "dataset": dataset, "loss": {"name": loss}}
    spec |= {"max_steps": 24, "epochs": 10, "logging_steps": 8, "learning_rate": 1e-3}
    result, events = run(spec, tmp_path / "out")
    assert result.state == "succeeded", result.end_reason
    losses = [data["values"]["loss"] for data in of(events, EventType.METRIC) if "loss" in data["values"]]
    # A cross-encoder of two fresh layers learns no pairs in so few steps; its losses are compared with their
    # definition in test_cross_encoder.py.
    assert family == "cross_encoder" or losses[-1] < losses[0]
    notices = [data["message"] for data in of(events, EventType.NOTICE)]
    assert any("columns that are not used: topic." in notice for notice in notices)
    assert not any("score" in notice.partition("not used:")[2] for notice in notices)


@pytest.mark.parametrize(
    ("score", "options", "message"),
    [
        (lambda same: {"score": 0.9 * same}, {}, "labels: {column: score"),
        (lambda same: {"score": 5 * same}, {"loss": {"name": "regression"}}, "divide_by: 5"),
        (lambda same: {"score": 1}, {"loss": {"name": "cosent"}}, "nothing to learn"),
        (lambda same: {}, {"loss": {"name": "cosent"}}, "rows have none"),
        (lambda same: {"label": same + 1}, {}, "Which values mark a positive"),
    ],
)
def test_scores_that_cannot_be_learned_are_refused(base, tmp_path, score, options, message):
    dataset = pairs(tmp_path / "rows.jsonl", score)
    result, _ = run({**base, "dataset": dataset, **options}, tmp_path / "out")
    assert (result.state, result.end_reason.code) == ("failed", "bad_data")
    assert message in result.end_reason.message


def test_labels_become_negatives(base, tmp_path):
    dataset = pairs(tmp_path / "rows.jsonl", lambda same: {"label": same})
    result, events = run({**base, "dataset": dataset}, tmp_path / "out")
    assert result.state == "succeeded", result.end_reason
    [notice] = [data for data in of(events, EventType.NOTICE) if "labels:" in data["message"]]
    assert "20 pairs are positives" in notice["message"]
