"""What a training leaves to read: a verdict, its plots, and a card that the hub understands."""

import json
from typing import get_args

import pytest
from huggingface_hub import ModelCard

from core.jobs.events import EventType
from core.spec.parts.training import Loss
from core.training.reporting import card as card_room
from tests.tiny import WORDS
from tests.training.running import of, run


@pytest.fixture
def spec(tiny_model, pairs_file) -> dict:
    return {
        "kind": "train",
        "name": "words",
        "base_model": f"file:{tiny_model}",
        "dataset": f"file:{pairs_file}",
        "max_steps": 6,
        "batch_size": 8,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "evaluation": {
            "datasets": [{"ref": f"file:{pairs_file}", "name": "same"}],
            "metrics": ["ndcg@10", "recall@1"],
            "every_steps": 2,
        },
    }


def test_a_training_ends_with_a_verdict(spec, tmp_path):
    result, events = run(spec, tmp_path / "out")
    assert result.state == "succeeded", result.end_reason
    folder = tmp_path / "out" / "report"
    found = json.loads((folder / "report.json").read_text())
    (compared,) = found["comparisons"]
    change = found["finetuned"]["same"]["ndcg@10"] - found["baseline"]["same"]["ndcg@10"]
    assert compared["difference"] == pytest.approx(change, abs=1e-9)
    assert compared["metric"] == "ndcg@10"
    assert result.metrics["verdicts"] == {"same": compared["verdict"]}
    assert f"same: {compared['verdict']}" in [data["message"] for data in of(events, EventType.NOTICE)]
    html = (folder / "report.html").read_text()
    assert html.count("data:image/png;base64,") == 2
    assert compared["verdict"].replace("+", "&#43;") in html or compared["verdict"] in html
    assert compared["verdict"] in (folder / "report.md").read_text()


def test_the_card_is_in_the_hubs_format(spec, tmp_path):
    run(spec, tmp_path / "out")
    card = ModelCard.load(tmp_path / "out" / "model" / "README.md")
    assert card.data.library_name == "sentence-transformers"
    found = json.loads((tmp_path / "out" / "report" / "report.json").read_text())
    measured = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert measured == {
        metric: pytest.approx(value, abs=1e-4) for metric, value in found["finetuned"]["same"].items()
    }
    assert found["rows_sha256"] in card.text
    assert found["base_model_sha256"] in card.text


def test_what_should_fall_is_stopped_by_when_it_rises(spec, rows_with_negatives, tmp_path):
    spec["dataset"] = f"file:{rows_with_negatives}"
    spec["evaluation"] |= {
        "datasets": [{"ref": f"file:{rows_with_negatives}", "name": "same"}],
        "early_stopping": {"metric": "negative_score", "patience": 50},
    }
    spec["max_steps"] = 12
    result, _ = run(spec, tmp_path / "out")
    assert result.state == "succeeded", result.end_reason
    found = json.loads((tmp_path / "out" / "report" / "report.json").read_text())
    scores = {entry["step"]: entry["scores"]["same"]["negative_score"] for entry in found["evaluations"]}
    assert found["best_step"] == min(scores, key=lambda step: scores[step])


def test_one_dataset_may_decide(spec, rows_with_negatives, tmp_path):
    spec["evaluation"]["datasets"].append({"ref": f"file:{rows_with_negatives}", "name": "other"})
    spec["evaluation"]["early_stopping"] = {"dataset": "other", "patience": 50}
    result, _ = run(spec, tmp_path / "out")
    assert result.state == "succeeded", result.end_reason
    found = json.loads((tmp_path / "out" / "report" / "report.json").read_text())
    scores = {entry["step"]: entry["scores"]["other"]["ndcg@10"] for entry in found["evaluations"]}
    assert scores[found["best_step"]] == max(scores.values())
    spec["evaluation"]["early_stopping"]["dataset"] = "otter"
    result, _ = run(spec, tmp_path / "typo")
    assert result.state == "failed"
    assert "there is no 'otter'; there are same, other" in result.end_reason.message


@pytest.fixture
def rows_with_negatives(tmp_path):
    path = tmp_path / "triplets.jsonl"
    rows = [
        {"query": f"a {word}", "positive": f"the {word}", "negatives": [f"the {WORDS[number - 5]} {number}"]}
        for number, word in enumerate(WORDS)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_card_has_a_name_for_every_loss():
    assert set(card_room._LOSSES) == set(get_args(Loss.model_fields["name"].annotation))
