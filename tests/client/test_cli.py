"""The command line as people and scripts meet it: sentences, JSON and exit codes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.faults.service import Service, free_port, until


def reason(*arguments: str, folder: Path, **settings: str) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("REASON_")}
    environment |= {"REASON_DATA_DIR": str(folder / "data"), "REASON_OFFLINE": "true", **settings}
    return subprocess.run(
        [sys.executable, "-m", "client.cli", *arguments],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(Path(__file__).parent.parent.parent)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@pytest.fixture(scope="module")
def spec(tiny_model: Path, pairs_file: Path) -> dict:
    return {
        "kind": "train",
        "name": "cli",
        "base_model": f"file:{tiny_model}",
        "dataset": f"file:{pairs_file}",
        "batch_size": 8,
        "evaluation": {"datasets": [f"file:{pairs_file}"]},
    }


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory):
    running = Service(tmp_path_factory.mktemp("service")).start()
    running.client.workers()  # waits until the API answers
    yield running
    running.stop()


def test_a_job_from_submit_to_download(service: Service, spec: dict, tmp_path: Path):
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    url = {"REASON_API_URL": service.client.url}
    done = reason("submit", "spec.yaml", "--set", "epochs=2", "--watch", "--json", folder=tmp_path, **url)
    assert done.returncode == 0, done.stderr
    job = json.loads(done.stdout)
    assert (job["state"], job["spec"]["epochs"]) == ("succeeded", 2)
    shown = reason("show", job["id"], folder=tmp_path, **url)
    assert "succeeded" in shown.stdout
    listed = reason("jobs", "--state", "succeeded", "--json", folder=tmp_path, **url)
    assert job["id"] in [item["id"] for item in json.loads(listed.stdout)]
    assert "succeeded" in reason("logs", job["id"], "-n", "5", folder=tmp_path, **url).stdout
    drawn = reason("metrics", job["id"], "--plot", "curves.png", folder=tmp_path, **url)
    assert drawn.returncode == 0, drawn.stderr
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    fetched = reason("download", f"job:{job['id']}/model", "model", folder=tmp_path, **url)
    assert fetched.returncode == 0, fetched.stderr
    assert (tmp_path / "model" / "model.safetensors").exists()
    assert "cli@" in reason("models", folder=tmp_path, **url).stdout
    assert json.loads(reason("workers", "--json", folder=tmp_path, **url).stdout)[0]["slots"] == 1


def test_exit_codes(service: Service, spec: dict, tmp_path: Path):
    url = {"REASON_API_URL": service.client.url}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    failed = reason(
        "submit", "spec.yaml", "--set", "lengths.document=9999", "--watch", folder=tmp_path, **url
    )
    assert failed.returncode == 1
    assert "at most 128" in failed.stdout
    typo = reason("submit", "spec.yaml", "--set", "learning_rte=1", folder=tmp_path, **url)
    assert typo.returncode == 2
    assert "learning_rte" in typo.stderr
    assert reason("show", "job_none", folder=tmp_path, **url).returncode == 2
    assert reason("submit", "missing.yaml", folder=tmp_path, **url).returncode == 2
    assert reason("nonsense", folder=tmp_path, **url).returncode == 2
    away = reason("jobs", folder=tmp_path, REASON_API_URL=f"http://127.0.0.1:{free_port()}")
    assert away.returncode == 4
    assert "reason serve" in away.stderr
    for failure in (failed, typo, away):
        assert "Traceback" not in failure.stderr


def test_cancelled_is_three(service: Service, spec: dict, tmp_path: Path):
    job = service.client.submit({**spec, "epochs": 10_000, "evaluation": {}})
    service.wait_for_step(job.id, 1)
    url = {"REASON_API_URL": service.client.url}
    assert reason("cancel", job.id, folder=tmp_path, **url).returncode == 0
    assert reason("watch", job.id, folder=tmp_path, **url).returncode == 3


def test_a_dataset_from_upload_to_training(service: Service, spec: dict, tmp_path: Path):
    url = {"REASON_API_URL": service.client.url}
    lines = [{"query": f"what is {n}", "positive": f"this is number {n}"} for n in range(40)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    sent = reason("upload", "rows.jsonl", "--name", "rows", "--json", folder=tmp_path, **url)
    assert sent.returncode == 0, sent.stderr
    made = json.loads(sent.stdout)
    again = reason("upload", "rows.jsonl", "--name", "rows", folder=tmp_path, **url)
    assert f"dataset:{made['id']}" in again.stdout
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "train.jsonl").write_text((tmp_path / "rows.jsonl").read_text())
    (folder / ".secret").write_text("stays at home")
    packed = reason("upload", "folder", "--name", "packed", "--json", folder=tmp_path, **url)
    assert packed.returncode == 0, packed.stderr
    assert {file["path"] for file in json.loads(packed.stdout)["files"]} == {"train.jsonl", ".preview.json"}
    listed = reason("datasets", folder=tmp_path, **url).stdout
    assert "rows@1" in listed
    assert "packed@1" in listed
    (tmp_path / "bad.jsonl").write_text("{}\n")
    refused = reason("upload", "bad.jsonl", "--name", "bad", folder=tmp_path, **url)
    assert refused.returncode == 2
    assert "line 1" in refused.stderr
    assert reason("upload", "none.jsonl", "--name", "bad", folder=tmp_path, **url).returncode == 2
    for reference in ("dataset:rows", "dataset:packed@1"):
        (tmp_path / "spec.yaml").write_text(yaml.safe_dump({**spec, "dataset": reference, "max_steps": 2}))
        done = reason("submit", "spec.yaml", "--watch", folder=tmp_path, **url)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "command",
    [
        "",
        "serve",
        "submit",
        "watch",
        "jobs",
        "upload",
        "datasets",
        "download",
        "run",
        "api",
        "keys",
        "worker",
    ],
)
def test_help_shows_an_example(command: str, tmp_path: Path):
    shown = reason(*[command] if command else [], "--help", folder=tmp_path)
    assert shown.returncode == 0
    assert not command or "example: reason" in shown.stdout


def test_run_without_a_service(spec: dict, tmp_path: Path):
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    done = reason("run", "spec.yaml", "--out", "out", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["state"] == "succeeded"
    again = reason("run", "spec.yaml", "--out", "out", folder=tmp_path)
    assert (again.returncode, "finished job" in again.stderr) == (2, True)
    typo = reason("run", "spec.yaml", "--out", "other", "--set", "loss.temprature=1", folder=tmp_path)
    assert (typo.returncode, "loss.temprature" in typo.stderr) == (2, True)
    assert not (tmp_path / "other").exists()


def start(folder: Path, *arguments: str) -> subprocess.Popen:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("REASON_")}
    environment |= {"REASON_DATA_DIR": str(folder / "data"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "client.cli", *arguments],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(Path(__file__).parent.parent.parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_interrupting_run_saves_a_checkpoint_and_the_same_command_goes_on(spec: dict, tmp_path: Path):
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump({**spec, "epochs": 60, "evaluation": {}}))
    running = start(tmp_path, "run", "spec.yaml", "--out", "out")
    events = until(lambda: list((tmp_path / "out").glob("checkpoints/tensorboard/*")), 60, "training begins")
    assert events
    time.sleep(0.5)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 3, errors
    assert list((tmp_path / "out" / "checkpoints").glob("*/checkpoint-*/manifest.json"))
    done = reason("run", "spec.yaml", "--out", "out", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Going on from checkpoint-" in done.stderr


def test_a_paused_and_resumed_job_is_watched_to_its_end(service: Service, spec: dict, tmp_path: Path):
    job = service.client.submit({**spec, "epochs": 100, "evaluation": {}})
    service.wait_for_step(job.id, 5)
    service.client.pause(job.id)
    assert service.wait(job.id).state == "paused"
    url = {"REASON_API_URL": service.client.url}
    assert reason("watch", job.id, folder=tmp_path, **url).returncode == 3
    service.client.resume(job.id)
    done = reason("watch", job.id, "--json", folder=tmp_path, **url)
    assert (done.returncode, json.loads(done.stdout)["state"]) == (0, "succeeded")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("show", "../queue"), "Not found"),
        (("metrics", "JOB", "--plot", "/nowhere/x.png"), "cannot be written"),
        (("download", "job:JOB/model", "/proc/nowhere"), "cannot be written"),
        (("run", "spec.yaml", "--out", "/proc/nowhere"), "cannot be written"),
    ],
)
def test_bad_places_are_a_sentence(service: Service, spec: dict, tmp_path: Path, arguments, words):
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    job = next(iter(service.client.jobs(state="succeeded")), None) or service.wait(
        service.client.submit(spec).id
    )
    failed = reason(
        *(argument.replace("JOB", job.id) for argument in arguments),
        folder=tmp_path,
        REASON_API_URL=service.client.url,
    )
    assert failed.returncode == 2, failed.stderr
    assert words in failed.stderr
    assert "Traceback" not in failed.stderr


def test_a_wrong_setting_is_a_sentence(tmp_path: Path):
    failed = reason("jobs", folder=tmp_path, REASON_SLOTS="abc")
    assert (failed.returncode, "REASON_SLOTS" in failed.stderr) == (2, True)
    assert "Traceback" not in failed.stderr


def test_text_with_brackets_is_text(spec: dict, tmp_path: Path):
    odd = {**spec, "dataset": f"file:{tmp_path / '[bold]pairs[-bold].jsonl'}", "max_reject_share": 0.5}
    good = Path(spec["dataset"].removeprefix("file:")).read_text()
    (tmp_path / "[bold]pairs[-bold].jsonl").write_text(
        good + '{"query": {"a": "x [/bold] y"}, "positive": "c"}\n'
    )
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump({**odd, "evaluation": {}, "max_steps": 1}))
    done = reason("run", "spec.yaml", "--out", "out", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "[/bold]" in done.stderr


def test_serve_says_when_the_port_is_taken_and_stops_cleanly(tmp_path: Path):
    port = str(free_port())
    serving = start(tmp_path, "serve", "--port", port)
    try:
        from client.client import Client

        with Client(f"http://127.0.0.1:{port}", retries=8) as client:
            until(lambda: client.workers(), 60, "the worker is listed")
            second = reason("serve", "--port", port, folder=tmp_path)
            assert second.returncode == 2
            assert "Another `reason serve`" in second.stderr
    finally:
        serving.send_signal(signal.SIGINT)
        _, errors = serving.communicate(timeout=60)
    assert serving.returncode == 0, errors
    assert "Traceback" not in errors


def test_the_api_binds_to_this_machine_only_until_there_is_a_key(tmp_path: Path):
    early = reason("keys", "create", "ci", folder=tmp_path)
    assert (early.returncode, "reason db upgrade" in early.stderr) == (2, True)
    assert reason("db", "upgrade", folder=tmp_path).returncode == 0
    refused = reason("api", "--host", "0.0.0.0", folder=tmp_path)
    assert refused.returncode == 2
    assert "reason keys create" in refused.stderr
    made = reason("keys", "create", "ci", "--scopes", "read,submit", "--json", folder=tmp_path)
    assert json.loads(made.stdout)["key"].startswith("key_")
    listed = reason("keys", "list", folder=tmp_path)
    assert "active" in listed.stdout
    assert reason("keys", "create", "x", "--scopes", "root", folder=tmp_path).returncode == 2


def test_a_pipeline_from_the_command_line(service, tmp_path):
    """Submit and watch: what a stage makes is read by the next; a stage that fails ends what needs it."""
    url = {"REASON_API_URL": service.client.url}
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f'{{"query": "q {n}", "positive": "answer {n}"}}\n' for n in range(20)))
    stages = {
        "prepare": {"kind": "prepare", "source": f"file:{rows}", "task": "columns"},
        "mine": {"kind": "mine", "model": "bm25", "dataset": "stage:prepare/dataset", "num_negatives": 2},
    }
    file = tmp_path / "pipeline.json"
    file.write_text(json.dumps({"name": "two", "stages": stages}))
    done = reason("pipeline", "submit", str(file), "--watch", folder=tmp_path, **url)
    assert done.returncode == 0, done.stderr
    assert "prepare: succeeded" in done.stderr
    assert "mine: succeeded" in done.stderr
    [listed] = json.loads(reason("pipeline", "list", "--json", folder=tmp_path, **url).stdout)
    assert listed["outputs"]["mine/dataset"].startswith("dataset:")
    failing = reason(
        "pipeline",
        "submit",
        str(file),
        "--watch",
        "--set",
        "stages.prepare.task=chunks",
        folder=tmp_path,
        **url,
    )
    assert failing.returncode == 1
    assert "prepare: failed" in failing.stderr
    assert "mine: Stage prepare has failed" in failing.stderr
    shown = reason("pipeline", "show", failing.stderr.split()[0], folder=tmp_path, **url).stdout
    assert "bad_spec: Stage prepare: task chunks is about documents" in shown
    wrong = reason(
        "pipeline", "submit", str(file), "--set", "stages.mine.dataset=stage:x/y", folder=tmp_path, **url
    )
    assert wrong.returncode == 2
    assert "stages.mine.dataset: there is no stage 'x'" in wrong.stderr
