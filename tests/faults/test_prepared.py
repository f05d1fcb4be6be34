"""A dataset made by one job trains in the next, over HTTP, on both databases."""

import json
from pathlib import Path

import pytest

from core.errors import InvalidRequest


@pytest.fixture(params=["sqlite", "postgresql"])
def running(request, service):
    if request.param == "sqlite":
        return service().start()
    return service(database_url=request.getfixturevalue("postgres_url")).start()


def test_prepared_then_trained_on(running, tiny_model, long_spec, tmp_path):
    source = long_spec["dataset"]
    # Sent over HTTP, as a user on another machine would.
    sent = running.client.upload(Path(source.removeprefix("file:")), "numbers-raw")
    source = f"dataset:{sent.id}"
    made = running.client.submit(
        {"kind": "prepare", "source": source, "split": {"test": 0.1}, "name": "numbers", "licence": "CC0"}
    )
    # Submitted at once: it waits for the dataset.
    trained = running.client.submit(
        {
            **long_spec,
            "dataset": f"job:{made.id}/dataset",
            "evaluation": {"datasets": [f"job:{made.id}/dataset"], "metrics": ["ndcg@10"]},
            "max_steps": 5,
        }
    )
    assert running.wait(made.id).state == "succeeded"
    ended = running.wait(trained.id)
    assert ended.state == "succeeded", ended.end_reason
    assert set(made.outputs or running.client.job(made.id).outputs) == {"dataset"}
    again = running.client.submit({**long_spec, "dataset": "dataset:numbers@1", "max_steps": 2})
    assert running.wait(again.id).state == "succeeded"
    running.client.download(f"job:{made.id}/dataset", tmp_path / "dataset")
    facts = json.loads((tmp_path / "dataset" / "dataset.json").read_text())
    assert facts["splits"] == {"train": 1800, "dev": 0, "test": 200}
    assert facts["licence"] == "CC0"


def test_a_faulty_spec_is_told_by_its_path(running):
    for change, path in (
        ({"kind": "prepair"}, "kind"),
        ({"source": {"ref": "file:x", "colums": {}}}, "source.colums"),
        ({"split": {"by": "page"}}, "split.by"),
    ):
        with pytest.raises(InvalidRequest) as caught:
            running.client.submit({"kind": "prepare", "source": "file:x", **change})
        assert [problem.path for problem in caught.value.problems] == [path]
