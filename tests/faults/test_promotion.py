"""A pipeline that runs again and again: its model is promoted when it is better, and not otherwise."""

import json

import pytest

from tests.tiny import WORDS


@pytest.fixture
def pipeline(tiny_model, tmp_path, running):
    """A training, and a comparison with the base on so many queries that chance does not decide."""
    rows = tmp_path / "pairs.jsonl"
    pairs = [(one, two) for one in WORDS for two in WORDS[:12] if one != two]
    rows.write_text(
        "".join(
            json.dumps({"query": f"what is {one} with {two}", "positive": f"{two} makes the {one} of it"})
            + "\n"
            for one, two in pairs
        )
    )
    uploaded = running.client.upload(rows, "promoted-pairs")
    return {
        "stages": {
            "prepare": {
                "kind": "prepare",
                "source": f"dataset:{uploaded.name}",
                "task": "columns",
                "split": {"test": 0.4},
            },
            "train": {
                "kind": "train",
                "base_model": f"file:{tiny_model}",
                "dataset": "stage:prepare/dataset",
                "batch_size": 16,
                "epochs": 8,
                "learning_rate": 3e-3,
            },
            "compare": {
                "kind": "evaluate",
                "models": ["stage:train/model", f"file:{tiny_model}"],
                "datasets": [{"ref": "stage:prepare/dataset", "split": "test"}],
                "metrics": ["ndcg@10"],
                "publish_best": True,
                "name": "promoted-model",
            },
        },
        "promote": "if_better",
    }


def test_a_better_model_becomes_the_current_one_and_an_equal_one_does_not(running, pipeline):
    client = running.client
    schedule = client.pipelines.schedule({**pipeline, "schedule": "0 3 * * SUN"})
    ran = client.pipelines.run_schedule(schedule.id)
    ended = client.pipelines.wait(ran.last_pipeline, timeout=240)
    assert ended.state == "succeeded", (ended.end_reason, running.logs())
    [verdict] = ended.verdicts
    assert verdict.outcome == "better", verdict
    first = client.find("model:promoted-model@current")
    assert (first.version, first.current) == (1, True)
    assert ended.outputs["compare/model"] == f"model:{first.id}"

    # Against what is current now: the same model, made again, is no better.
    compare = {
        **pipeline["stages"]["compare"],
        "models": ["stage:train/model", "model:promoted-model@current"],
    }
    again = {**pipeline, "stages": {**pipeline["stages"], "compare": compare}}
    ended = client.pipelines.wait(client.pipelines.submit(again).id, timeout=240)
    assert ended.state == "succeeded", ended.end_reason
    assert ended.stages["train"].reused_from, "nothing has changed that it depends on"
    assert [verdict.outcome for verdict in ended.verdicts] == ["no difference"]
    assert client.find("model:promoted-model@current").id == first.id
    assert client.find("model:promoted-model").id == first.id, "no version was published"
    again = running.folder / "current"
    client.download("model:promoted-model@current", again)  # checks every file
    assert json.loads((again / "chosen.json").read_text())["name"] != "current"
    kept = client.find(ended.outputs["compare/model"])
    assert (kept.name, kept.current) == (None, False)
    client.pipelines.delete_schedule(schedule.id)
