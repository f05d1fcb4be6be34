"""What Prometheus reads."""

import json
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from api.app import create_app
from core.jobs.hosts import Gpu
from core.jobs.reasons import EndReason
from core.store.attempts.leases import Capacity
from core.store.fleet import Inventory
from migrations import upgrade

ROOT = Path(__file__).parent.parent.parent


def read(http: TestClient, **headers: str) -> dict[tuple, float]:
    """{(sample, (label, value)...): number}"""
    answer = http.get("/metrics", headers=headers)
    assert answer.status_code == 200, answer.text
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


@pytest.fixture
def http(settings):
    upgrade(settings.database_url)
    data = settings.data_dir
    (data / "model").mkdir(parents=True)
    (data / "pairs.jsonl").write_text('{"query": "a", "positive": "b"}\n')
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


def test_the_queue_and_the_fleet_in_numbers(http, settings):
    data = settings.data_dir
    spec = {"kind": "train", "base_model": f"file:{data}/model", "dataset": f"file:{data}/pairs.jsonl"}
    for _ in range(3):
        assert http.post("/jobs", json=spec).status_code == 201
    store = http.app.state.store
    gpu = Gpu(index=0, uuid="GPU-a", name="H200", memory_bytes=100, free_bytes=60)
    worker = store.workers.register(Inventory("host", 2, [gpu], 10**9, ["gpu"]))
    capacity = Capacity(worker=worker, gpus={"GPU-a": 100})
    store.leases.finish(store.leases.claim(capacity, 30), EndReason.BAD_DATA)
    assert store.leases.claim(capacity, 30)
    seen = read(http)
    assert seen["reason_database_up",] == 1
    assert seen["reason_jobs", ("state", "queued")] == 1
    assert seen["reason_jobs", ("state", "running")] == 1
    assert seen["reason_jobs", ("state", "paused")] == 0
    assert seen["reason_jobs_ended", ("kind", "train"), ("reason", "bad_data")] == 1
    assert seen["reason_queue_oldest_seconds",] > 0
    assert seen["reason_worker_slots", ("worker", worker)] == 2
    assert seen["reason_worker_jobs", ("worker", worker)] == 1
    assert seen["reason_gpu_held", ("gpu", "GPU-a"), ("name", "H200")] == 1
    assert seen["reason_gpu_memory_free_bytes", ("gpu", "GPU-a"), ("name", "H200")] == 60
    calls = ("reason_http_seconds_count", ("method", "POST"), ("route", "/jobs"), ("status", "201"))
    assert seen[calls] == 3


def test_the_numbers_need_a_key_unless_they_are_open(http, settings):
    _, secret = http.app.state.store.keys.create("monitoring", ["read"])
    assert http.get("/metrics").status_code == 401
    assert read(http, Authorization=f"Bearer {secret}")["reason_database_up",] == 1
    opened = settings.model_copy(update={"open_metrics": True})
    with TestClient(create_app(opened), base_url="http://api:8000") as client:
        assert read(client)["reason_database_up",] == 1
        assert client.get("/jobs").status_code == 401


@pytest.mark.parametrize(
    "accept", ["application/openmetrics-text; version=abc", "text/plain; version=x", ";;,", "*/*", ""]
)
def test_any_accept_header_gets_the_numbers(http, accept):
    answer = http.get("/metrics", headers={"Accept": accept})
    assert answer.status_code == 200
    assert "reason_database_up 1.0" in answer.text


def test_without_the_database_the_rest_is_still_told(settings):
    gone = settings.model_copy(
        update={"database_url": "postgresql://nobody@127.0.0.1:1/none", "open_metrics": True}
    )
    with TestClient(create_app(gone)) as client:
        seen = read(client)
    assert seen["reason_database_up",] == 0
    assert ("reason_jobs", ("state", "queued")) not in seen


def test_a_path_of_a_job_is_no_series_of_its_own(http):
    http.get("/jobs/job_1")
    http.get("/nowhere/1")
    routes = {dict(key[1:]).get("route") for key in read(http) if key[0] == "reason_http_seconds_count"}
    assert routes == {"/jobs/{job_id}", "none"}


def test_made_up_methods_and_errors_that_nobody_foresaw(http, monkeypatch):
    for method in ("FOO1", "FOO2"):
        http.request(method, "/jobs")
    monkeypatch.setattr(http.app.state.store.jobs, "depth", lambda: 1 / 0)
    assert http.get("/queue").status_code == 500
    calls = {
        tuple(dict(key[1:]).values()): value
        for key, value in read(http).items()
        if key[0] == "reason_http_seconds_count"
    }
    assert calls["other", "/jobs", "405"] == 2
    assert calls["GET", "/queue", "500"] == 1


def test_dashboard_and_documentation_name_what_there_is(http):
    names = {key[0] for key in read(http)}
    names |= {"reason_artifacts", "reason_artifacts_bytes", "reason_worker_slots", "reason_worker_jobs"}
    names |= {
        "reason_gpu_memory_bytes",
        "reason_gpu_memory_free_bytes",
        "reason_gpu_held",
        "reason_jobs_ended",
    }
    names |= {f"reason_http_seconds_{part}" for part in ("bucket", "count", "sum")}
    folder = ROOT / "docker" / "monitoring" / "grafana" / "dashboards"
    board = json.loads((folder / "reason.json").read_text())
    asked = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    assert asked
    for expression in asked:
        words = {word for word in _words(expression) if word.startswith("reason_")}
        assert words, expression
        assert words <= names, expression
    told = {word for word in _words((ROOT / "docs" / "http.md").read_text()) if word.startswith("reason_")}
    assert {name.removesuffix("_sum").removesuffix("_bucket").removesuffix("_count") for name in names} - {
        "reason_http_seconds_created"
    } <= told | {"reason_http_seconds"}


def _words(text: str) -> list[str]:
    return "".join(letter if letter.isalnum() or letter == "_" else " " for letter in text).split()
