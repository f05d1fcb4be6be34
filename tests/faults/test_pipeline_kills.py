"""A pipeline whose worker, API and job processes are killed: every stage succeeds once, in order."""

import contextlib

import psutil
import pytest

from core.jobs.state import JobState
from tests.faults.service import Service, until

VICTIMS = {"prepare": "job", "mine": "worker", "train": "api", "compare": "worker"}


@pytest.fixture
def stages(tiny_model, pairs_file) -> dict:
    model, rows = f"file:{tiny_model}", f"file:{pairs_file}"
    return {
        "prepare": {"kind": "prepare", "source": rows, "task": "columns"},
        "mine": {"kind": "mine", "model": "bm25", "dataset": "stage:prepare/dataset", "num_negatives": 2},
        "train": {
            "kind": "train",
            "base_model": model,
            "dataset": "stage:mine/dataset",
            "batch_size": 8,
            "max_steps": 10,
        },
        "compare": {
            "kind": "evaluate",
            "models": ["stage:train/model", model],
            "datasets": [rows],
        },
    }


@pytest.mark.slow
def test_every_stage_succeeds_once_whoever_is_killed(service, stages):
    running: Service = service().start()
    for name in stages:
        stages[name]["resources"] = {"gpus": 0}
    made = running.client.pipelines.submit({"stages": stages})
    for name, victim in VICTIMS.items():
        job = made.stages[name].job
        # A short stage may have ended before it is seen: then the next one is hit.
        until(lambda job=job: running.client.job(job).state in ("running", "succeeded"), what=name)
        if victim == "job":
            with contextlib.suppress(psutil.Error):
                if process := running._find(job):
                    process.kill()
            continue
        running.kill(victim)
        running.start(victim)
    ended = running.client.pipelines.wait(made.id, timeout=300)
    assert ended.state == "succeeded", (ended.end_reason, running.logs())
    events = list(running.client.pipelines.stream(made.id))
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    changes = [(event.stage, event.data.state) for event in events if event.type == "state"]
    for name, stage in ended.stages.items():
        assert changes.count((name, JobState.SUCCEEDED)) == 1
        for needed in stage.needs:
            started = changes.index((name, JobState.RUNNING))
            assert changes.index((needed, JobState.SUCCEEDED)) < started
        outputs = [artifact.output for artifact in running.client.artifacts(stage.job)]
        assert len(outputs) == len(set(outputs)) > 0
