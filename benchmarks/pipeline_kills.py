"""SIGKILL of the job's process, the worker and the API in every stage of a pipeline: is a stage lost or done
twice?

Run: ``python -m benchmarks.pipeline_kills ROUNDS``. Writes benchmarks/reports/pipeline_kills.json and
pipeline_kills.md. In each round a pipeline of six stages runs, and in each stage all three are killed, one
after the other, each after a random time. A round passes when every stage has succeeded exactly once and
after those that it needs, with each output once, and the stream is numbered without gaps.
"""

import contextlib
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.report import write_report
from core.jobs.state import JobState
from core.jobs.views import PipelineView
from tests.faults.conftest import make_long_spec
from tests.faults.service import Service, until
from tests.tiny import make_model

_VICTIMS = ("job", "worker", "api")
_LONGEST_SECONDS = 1.5
"""Between the begin of an attempt, or the last kill, and the next kill."""


def make_stages(folder: Path) -> dict[str, dict[str, Any]]:
    """A recipe's stages on a tiny model, each long enough to be hit."""
    training = make_long_spec(make_model(folder / "tiny"), folder / "pairs.jsonl")
    model, rows = training["base_model"], training["dataset"]
    common = {"resources": {"gpus": 0}, "max_attempts": 20}
    judged = [{"ref": "stage:prepare/dataset", "split": "test"}]
    trained = {"ref": "stage:train/model", "name": "trained"}
    stages = {
        "prepare": {
            "kind": "prepare",
            "source": rows,
            "task": "retrieval",
            "split": {"test": 0.2},
        },
        "baseline": {"kind": "evaluate", "models": [{"ref": model, "name": "base"}], "datasets": judged},
        "mine": {"kind": "mine", "model": model, "dataset": "stage:prepare/dataset", "num_negatives": 1},
        "train": {
            **training,
            "name": None,
            "dataset": "stage:mine/dataset",
            "epochs": 2,
        },
        "compare": {
            "kind": "evaluate",
            "models": [trained, {"ref": model, "name": "base"}],
            "datasets": judged,
            "publish_best": True,
        },
        "index": {"kind": "embed", "model": "stage:compare/model", "corpus": "stage:prepare/dataset"},
    }
    return {name: {**common, **stage} for name, stage in stages.items()}


def one_round(service: Service, stages: dict[str, dict[str, Any]], drawn: random.Random) -> tuple[int, float]:
    """Returns (kills that hit a running stage, seconds). Raises `AssertionError` when a promise is broken."""
    begun, hits = time.monotonic(), 0
    made = service.client.pipelines.submit({"stages": stages, "reuse": False})
    for stage in made.stages.values():
        for victim in drawn.sample(_VICTIMS, len(_VICTIMS)):
            until(lambda job=stage.job: _begun(service, job), what="the stage begins")
            time.sleep(drawn.uniform(0, _LONGEST_SECONDS))
            hits += service.client.job(stage.job).state == JobState.RUNNING
            _kill(service, victim, stage.job)
    ended = service.client.pipelines.wait(made.id, timeout=300)
    _check(service, ended)
    return hits, time.monotonic() - begun


def _begun(service: Service, job_id: str) -> bool:
    return service.client.job(job_id).state in (JobState.RUNNING, JobState.SUCCEEDED)


def _kill(service: Service, victim: str, job_id: str) -> None:
    if victim == "job":
        with contextlib.suppress(psutil.Error):
            if process := service._find(job_id):
                process.kill()
        return
    service.kill(victim)
    service.start(victim)
    if victim == "api":
        until(service.client.workers, what="the API answers")


def _check(service: Service, ended: PipelineView) -> None:
    assert ended.state == "succeeded", (ended.end_reason, service.logs())
    events = list(service.client.pipelines.stream(ended.id))
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    changes = [(event.stage, event.data.state) for event in events if event.type == "state"]
    for name, stage in ended.stages.items():
        assert changes.count((name, JobState.SUCCEEDED)) == 1, name
        for needed in stage.needs:
            assert changes.index((needed, JobState.SUCCEEDED)) < changes.index((name, JobState.RUNNING))
        outputs = [artifact.output for artifact in service.client.artifacts(stage.job)]
        assert sorted(outputs) == sorted(set(outputs)), name
        assert outputs, name


def main(count: int) -> None:
    drawn = random.Random(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stages = make_stages(folder)
        (folder / "service").mkdir()
        service = Service(folder / "service").start()
        found = []
        try:
            for number in range(count):
                found.append(one_round(service, stages, drawn))
                print(f"round {number + 1}: {found[-1][0]} kills hit, {found[-1][1]:.0f} s", flush=True)
        finally:
            service.stop()
    write(found, len(stages))


def write(found: list[tuple[int, float]], stages: int) -> None:
    hits, seconds = [hit for hit, _ in found], [taken for _, taken in found]
    results = {
        "rounds_passed": len(found),  # a broken promise ends the benchmark with an AssertionError
        "stages": stages,
        "kills": len(found) * stages * len(_VICTIMS),
        "kills_of_running_stages": sum(hits),
        "round_p50_s": round(statistics.median(seconds), 1),
    }
    told = (
        f"{len(found)} rounds passed. In each, a pipeline of {stages} stages ran, and in each stage the "
        "job's process, the worker and the API were killed in a random order: "
        f"{results['kills']} kills, of which {sum(hits)} came while the stage ran. In every round each stage "
        "succeeded exactly once, after those that it needs, with each output once, and the stream of events "
        "was numbered without gaps."
    )
    setting = "SQLite, filesystem broker, lease 3 s."
    write_report(
        "pipeline_kills",
        {"results": results},
        lambda where: ["# SIGKILL in every stage of a pipeline", "", f"{where}. {setting}", "", told],
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
