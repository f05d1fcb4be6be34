"""Pipelines whose stages take what earlier ones have made, run by a real worker."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis

from tests.faults.service import Service


def rows(path: Path, word: str) -> str:
    lines = [
        json.dumps({"query": f"what is {word} {number}", "positive": f"{word} {number} of {path.parent}"})
        for number in range(20)
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return f"file:{path}"


@pytest.fixture
def stages(tmp_path) -> dict:
    """Two branches, of which one has a file that a test changes."""
    kept, changed = rows(tmp_path / "kept.jsonl", "fish"), rows(tmp_path / "changed.jsonl", "bird")
    return {
        "kept": {"kind": "prepare", "source": kept, "task": "columns"},
        "changed": {"kind": "prepare", "source": changed, "task": "columns"},
        "mined": {"kind": "mine", "model": "bm25", "dataset": "stage:changed/dataset", "num_negatives": 2},
        "compared": {
            "kind": "evaluate",
            "models": ["bm25"],
            "datasets": [{"ref": "stage:kept/dataset", "split": "train"}],
        },
    }


def run(service: Service, stages: dict, **more):
    made = service.client.pipelines.submit({"stages": stages, **more})
    ended = service.client.pipelines.wait(made.id, timeout=240)
    assert ended.state == "succeeded", (ended.end_reason, service.logs())
    return ended


def reused(pipeline) -> dict[str, str]:
    return {name: stage.reused_from for name, stage in pipeline.stages.items() if stage.reused_from}


def hashes(service: Service, pipeline) -> dict[str, str]:
    return {
        f"{name}/{artifact.output}": artifact.sha256
        for name, stage in pipeline.stages.items()
        for artifact in service.client.artifacts(stage.job)
    }


def test_only_what_depends_on_a_change_runs_again(running, stages, tmp_path):
    first = run(running, stages)
    assert reused(first) == {}
    second = run(running, stages, name="again", labels={"team": "search"})
    assert reused(second) == {name: stage.job for name, stage in first.stages.items()}
    assert hashes(running, second) == hashes(running, first)
    job = running.client.job(second.stages["compared"].job)
    assert job.latest == running.client.job(first.stages["compared"].job).latest != {}
    assert job.end_reason.message.startswith(f"Took the outputs of job {job.reused_from}")

    rows(tmp_path / "changed.jsonl", "tree")
    third = run(running, stages)
    assert set(reused(third)) == {"kept", "compared"}
    fourth = run(running, stages, reuse=False)
    assert reused(fourth) == {}
    assert hashes(running, fourth).keys() == hashes(running, third).keys()


def test_what_a_single_job_has_made_is_taken_too_unless_its_files_are_gone(running, stages):
    job = running.client.submit(stages["kept"])
    running.wait(job.id)
    origin = running.client.job(job.id).origin
    [content] = origin.contents.values()
    assert content.startswith("sha256:")
    taken = run(running, {"kept": stages["kept"]})
    assert reused(taken) == {"kept": job.id}
    [artifact] = [found for found in running.client.artifacts(job.id) if found.output == "dataset"]
    place = Path(running.environment["REASON_DATA_DIR"]) / "artifacts" / "dataset" / artifact.sha256[:2]
    for file in (place / artifact.sha256).glob("*.parquet"):
        file.unlink()
    assert reused(run(running, {"kept": stages["kept"]})) == {}


def test_a_divided_job_is_reused_with_its_parts(running, stages, tiny_model):
    stages["mined"] |= {"model": f"file:{tiny_model}", "parts": 2}
    divided = {name: stages[name] for name in ("changed", "mined")}
    first = run(running, divided)
    assert reused(run(running, divided)) == {name: first.stages[name].job for name in divided}


def test_two_pipelines_at_the_same_moment_run_shared_stages_once(service, stages):
    running: Service = service(slots=3).start()
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: run(running, stages), range(2)))
    for name in stages:
        ran = [pipeline for pipeline in both if not pipeline.stages[name].reused_from]
        assert len(ran) == 1, (name, [reused(pipeline) for pipeline in both], running.logs())
    assert hashes(running, both[0]) == hashes(running, both[1])


@pytest.mark.slow
def test_a_fleet_reuses_what_lies_in_remote_storage(
    service, stages, tiny_model, postgres_url, redis_url, s3_url, request
):
    """PostgreSQL, Redis and S3: the better model of a comparison and its index, made once."""
    request.addfinalizer(lambda: redis.Redis.from_url(redis_url).flushdb())
    running = service(database_url=postgres_url, broker_url=redis_url, artifact_url=s3_url).start()
    model = f"file:{tiny_model}"
    short = {
        "prepare": stages["kept"] | {"task": "retrieval", "split": {"test": 0.3}},
        "train": {
            "kind": "train",
            "base_model": model,
            "dataset": {"ref": "stage:prepare/dataset", "split": "train"},
            "max_steps": 2,
            "batch_size": 4,
        },
        "compare": {
            "kind": "evaluate",
            "models": [{"ref": "stage:train/model", "name": "trained"}, {"ref": model, "name": "base"}],
            "datasets": [{"ref": "stage:prepare/dataset", "split": "test"}],
            "publish_best": True,
        },
        "index": {"kind": "embed", "model": "stage:compare/model", "corpus": "stage:prepare/dataset"},
    }
    first = run(running, short)
    second = run(running, short)
    assert reused(second) == {name: stage.job for name, stage in first.stages.items()}
    assert hashes(running, second) == hashes(running, first)
    folder = running.folder / "better"
    running.client.download(second.outputs["compare/model"], folder)
    assert json.loads((folder / "chosen.json").read_text())["chosen_from"] == ["trained", "base"]
    assert "model.safetensors" in {path.name for path in folder.iterdir()}
