"""``train.mine``: the negatives of a mine job, found once before the first step, and kept by checkpoints."""

import json

import pytest

from core.data.training_rows.dataset import read_split
from core.errors import InvalidRequest
from core.jobs.events import EventType
from core.spec import parse_spec
from core.training.negatives import mining_first
from tests.mining.running import made, mine
from tests.tiny import make_static
from tests.training.running import StopAt, of, run, weights

MINE = {"model": "bm25", "num_negatives": 2, "filters": {"positive_aware": None}}


@pytest.fixture
def spec(tiny_model, pairs_file) -> dict:
    return {
        "kind": "train",
        "base_model": f"file:{tiny_model}",
        "dataset": f"file:{pairs_file}",
        "batch_size": 8,
        "learning_rate": 2e-3,
        "epochs": 2,
        "logging_steps": 1,
        "mine": MINE,
    }


def notices(events) -> list[str]:
    return [data["message"] for data in of(events, EventType.NOTICE)]


@pytest.fixture
def trained_on(monkeypatch) -> list:
    """The rows that come out of mining, run by run."""
    seen, mined = [], mining_first.mine_first

    def noted(*arguments):
        found = mined(*arguments)
        seen.append([list(read_split(item.folder, "train")) for item in found])
        return found

    monkeypatch.setattr("core.training.rows.mine_first", noted)
    return seen


@pytest.mark.parametrize("miner", ["bm25", "static"])
def test_the_rows_are_those_of_a_mine_job(spec, pairs_file, tmp_path, trained_on, miner):
    model = "bm25" if miner == "bm25" else f"file:{make_static(tmp_path / 'static')}"
    spec["mine"] = {**MINE, "model": model}
    result, events = run(spec, tmp_path / "out")
    assert result.state == "succeeded", result.end_reason
    assert mine(tmp_path / "job", f"file:{pairs_file}", **spec["mine"]).state == "succeeded"
    expected = made(tmp_path / "job")
    [[rows]] = trained_on
    assert [row.negatives for row in rows] == [row["negatives"] for row in expected]
    assert any(row.negatives for row in rows)
    assert any("negatives a row" in sentence for sentence in notices(events))
    report = tmp_path / "out" / "report"
    told = json.loads((report / "report.json").read_text())
    assert told["mining"][0]["num_negatives"] == 2
    assert (report / "mining-report-0" / "report.md").exists()
    assert set(result.outputs) == {"model", "report"}


def test_mined_negatives_change_the_training(spec, tmp_path):
    run(spec, tmp_path / "mined")
    run({**spec, "mine": None}, tmp_path / "plain")
    mined, plain = weights(tmp_path / "mined"), weights(tmp_path / "plain")
    assert any(not (mined[name] == plain[name]).all() for name in mined)


def test_a_stopped_training_goes_on_with_the_same_rows(spec, tmp_path, trained_on):
    run(spec, tmp_path / "whole")
    reporter = StopAt(5)
    run(spec, tmp_path / "parts", reporter=reporter, stop=reporter.stop)
    [kept] = (tmp_path / "parts" / "checkpoints").glob("*/checkpoint-*/mined-first-0.parquet")
    assert kept.stat().st_size > 0
    result, events = run(spec, tmp_path / "parts")
    assert result.state == "succeeded", result.end_reason
    assert any("mined before are used again" in sentence for sentence in notices(events))
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all((whole[name] == parts[name]).all() for name in whole)
    assert trained_on[0] == trained_on[1] == trained_on[2]


def test_rows_that_changed_meanwhile_are_noticed(spec, pairs_file, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(pairs_file.read_text())
    spec["dataset"] = f"file:{path}"
    reporter = StopAt(5)
    run(spec, tmp_path / "out", reporter=reporter, stop=reporter.stop)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-4]))
    result, _ = run(spec, tmp_path / "out")
    assert result.end_reason.code == "bad_data"
    assert "negatives mined before training" in result.end_reason.message


def test_a_missing_miner_ends_before_anything_is_trained(spec, tmp_path):
    spec["mine"] = {"model": f"file:{tmp_path / 'nowhere'}"}
    result, events = run(spec, tmp_path / "out")
    assert result.end_reason.code == "bad_model"
    assert not any("loss" in data["values"] for data in of(events, EventType.METRIC))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"loss": {"name": "cosent"}}, "mine cannot be used with loss cosent"),
        ({"loss": {"name": "margin_mse"}}, "keep_scores"),
        ({"remine": {"keep_own": "never"}}, "replace all"),
        ({"mine": {"model": "bm25", "half": True}}, "half has no effect with bm25"),
    ],
)
def test_what_does_not_go_together_is_refused(spec, change, words):
    with pytest.raises(InvalidRequest) as refused:
        parse_spec({**spec, **change})
    assert words in str([problem.message for problem in refused.value.problems])


def test_its_references_are_known():
    found = parse_spec(
        {
            "kind": "train",
            "base_model": "a/b",
            "dataset": "file:/x",
            "mine": {
                "model": "c/d",
                "corpus": "file:/y",
                "filters": {"cross_encoder": {"model": "e/f"}},
            },
        }
    ).references()
    assert found["mine.model"] == "c/d"
    assert found["mine.corpus.0"] == "file:/y"
    assert found["mine.filters.cross_encoder.model"] == "e/f"
