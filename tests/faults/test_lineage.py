"""Where a model comes from, and making it again with the same bytes."""

import json
import os
import subprocess
import sys

import pytest

from tests.faults.service import ROOT


@pytest.fixture
def trained(running, pairs_file, tiny_model):
    """A pipeline of three stages that has run, over an upload."""
    uploaded = running.client.upload(pairs_file, "lineage-pairs")
    made = running.client.pipelines.submit(
        {
            "stages": {
                "prepare": {
                    "kind": "prepare",
                    "source": f"dataset:{uploaded.name}",
                    "task": "columns",
                    "licence": "CC0",
                },
                "mine": {
                    "kind": "mine",
                    "model": f"file:{tiny_model}",
                    "dataset": "stage:prepare/dataset",
                    "num_negatives": 2,
                    "parts": 2,
                },
                "train": {
                    "kind": "train",
                    "base_model": f"file:{tiny_model}",
                    "dataset": "stage:mine/dataset",
                    "batch_size": 8,
                    "max_steps": 4,
                    "name": "descendant",
                    "seed": 7,
                },
            }
        }
    )
    ended = running.client.pipelines.wait(made.id, timeout=240)
    assert ended.state == "succeeded", (ended.end_reason, running.logs())
    return ended, uploaded


def reason(running, *arguments: str) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("REASON_")}
    return subprocess.run(
        [sys.executable, "-m", "client.cli", *arguments],
        cwd=running.folder,
        env={
            **environment,
            "PYTHONPATH": str(ROOT),
            "REASON_API_URL": f"http://127.0.0.1:{running.port}",
        },
        capture_output=True,
        text=True,
        timeout=280,
    )


def test_a_model_leads_to_its_upload_and_back_and_is_made_again_byte_for_byte(running, trained):
    pipeline, uploaded = trained
    found = running.client.lineage("model:descendant")
    by_kind = {}
    for job in found.jobs:
        by_kind.setdefault(job.kind, []).append(job)
    assert {kind: len(jobs) for kind, jobs in by_kind.items()} == {"prepare": 1, "mine": 3, "train": 1}
    [train] = by_kind["train"]
    assert train.spec["seed"] == 7
    assert train.origin.libraries["torch"]
    assert all(content for content in train.origin.contents.values())
    licences = {one.licence for one in found.artifacts if one.direction == "up" and one.kind == "dataset"}
    assert "CC0" in licences
    assert uploaded.id in {one.id for one in found.artifacts}
    assert list(found.stages) == ["prepare", "mine", "train"]
    assert found.stages["mine"]["parts"] == 2
    assert found.stages["prepare"]["source"]["ref"] == f"dataset:{uploaded.id}"

    below = running.client.lineage(f"dataset:{uploaded.id}")
    assert {job.id for job in below.jobs if job.direction == "down"} >= {
        stage.job for stage in pipeline.stages.values()
    }
    assert below.stages == {}, "an upload was made by no job"

    told = reason(running, "lineage", "model:descendant")
    assert told.returncode == 0, told.stderr
    for word in (
        uploaded.id,
        "seed 7",
        "by train",
        "by mine",
        "by prepare",
        "licence CC0",
        "reason reproduce",
    ):
        assert word in told.stdout

    again = reason(running, "reproduce", "model:descendant", "--json")
    assert again.returncode == 0, again.stdout + again.stderr
    compared = json.loads(again.stdout)
    assert compared["different"] == []
    assert "model.safetensors" in compared["same"]


def test_what_cannot_be_made_again_is_said(running, trained):
    _, uploaded = trained
    refused = reason(running, "reproduce", f"dataset:{uploaded.id}")
    assert refused.returncode == 2
    assert "no job has made it" in refused.stderr
