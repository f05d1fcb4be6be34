"""A corpus among several jobs of the queue, over HTTP: the same dataset as by one, and one to cancel."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest


@pytest.fixture
def spec(tiny_model, tmp_path) -> dict:
    """More documents than a shard has."""
    corpus = tmp_path / "inputs"
    corpus.mkdir()
    lines = [
        {"_id": f"c{number}", "text": f"{number} river and {number % 7} bridge"} for number in range(9000)
    ]
    (corpus / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = [{"query": f"{number} river", "positive": lines[number]["text"]} for number in range(50)]
    (corpus / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "kind": "mine",
        "name": "far",
        "dataset": f"file:{corpus / 'rows.jsonl'}",
        "corpus": f"file:{corpus / 'corpus.jsonl'}",
        "model": f"file:{tiny_model}",
        "filters": {"near_duplicates": None, "positive_aware": None},
    }


def test_parts_of_the_queue_make_what_one_job_makes(running, spec, tmp_path):
    one = running.client.submit(spec)
    many = running.client.submit({**spec, "parts": 2, "labels": {"team": "search"}})
    assert many.state in ("waiting", "queued")
    parts = list(running.client.jobs(label=f"part_of:{many.id}"))
    assert {part.name for part in parts} == {"far 1 of 2", "far 2 of 2"}
    assert all(part.labels["team"] == "search" for part in parts)
    assert running.wait(one.id).state == "succeeded"
    assert running.wait(many.id).state == "succeeded"
    found = []
    for job in (one, many):
        running.client.download(f"job:{job.id}/dataset", tmp_path / job.id)
        found.append(pq.read_table(tmp_path / job.id / "train.parquet").to_pylist())
        assert len(found[-1]) == 50
        assert all(len(row["negatives"]) == 4 for row in found[-1])
    assert found[0] == found[1]
    facts = json.loads((Path(tmp_path / many.id) / "dataset.json").read_text())
    assert facts["mining"]["parts"] == 2


def test_whoever_cancels_the_last_cancels_its_parts(service, spec):
    running = service().start("api")
    many = running.client.submit({**spec, "parts": 3})
    other = running.client.submit(spec)
    assert running.client.cancel(many.id).state == "cancelled"
    parts = list(running.client.jobs(label=f"part_of:{many.id}"))
    assert [part.state for part in parts] == ["cancelled"] * 3
    assert running.client.job(other.id).state == "queued"
