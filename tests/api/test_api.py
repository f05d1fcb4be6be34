"""The contract over HTTP, in process; the worker's part is played by the store."""

import json
from datetime import UTC, datetime

import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from core.artifacts import Library
from core.jobs.events import Event, EventType
from core.jobs.reasons import EndReason
from core.settings import Settings
from core.store.artifacts import NewArtifact
from core.store.attempts.progress import ProgressUpdate
from migrations import upgrade
from tests.api.submitting import CPU, post
from tests.held import held_by


@pytest.fixture
def spec(settings: Settings) -> dict:
    data = settings.data_dir
    (data / "model").mkdir(parents=True)
    (data / "pairs.jsonl").write_text('{"query": "a", "positive": "b"}\n')
    return {
        "kind": "train",
        "base_model": f"file:{data / 'model'}",
        "dataset": f"file:{data / 'pairs.jsonl'}",
    }


def finished(http: TestClient, settings: Settings, tmp_path, text: bytes = b"0123456789" * 1000) -> dict:
    """A succeeded job with a model of one file."""
    folder = tmp_path / "made"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "weights.bin").write_bytes(text)
    published = Library(settings.artifact_url).publish(folder, "model", {"rows": 3})
    store = http.app.state.store
    held = store.leases.claim(CPU, 30)
    manifest = published.manifest
    output = NewArtifact(
        "model", "model", published.uri, manifest.sha256, manifest.bytes, manifest.model_dump(mode="json")
    )
    store.leases.finish(held, EndReason.SUCCEEDED, outputs=[held_by(store, output)])
    return http.get(f"/jobs/{held.job_id}").json()


def test_submit_and_show(http, spec):
    made = post(http, spec)
    assert made.status_code == 201
    job = made.json()
    assert made.headers["location"] == f"/jobs/{job['id']}"
    assert (job["state"], job["queue_position"], job["attempt"]) == ("queued", 0, 0)
    assert job["created_at"].endswith("Z")
    assert http.get(f"/jobs/{job['id']}").json() == job
    expected = {"id", "kind", "name", "labels", "state", "phase", "progress", "latest", "memory", "attempt"}
    expected |= {"max_attempts", "queue_position", "priority", "created_at", "started_at", "finished_at"}
    assert expected | {"end_reason", "spec", "inputs", "outputs", "worker", "links"} <= set(job)


def test_a_spec_that_does_not_validate(http, spec):
    answer = post(http, {**spec, "learning_rte": 1, "loss": {"temperature": 0}})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert {error["path"] for error in body["errors"]} == {"learning_rte", "loss.temperature"}
    assert {"type", "title", "status", "detail", "code"} <= set(body)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"null"])
def test_a_body_that_is_no_spec(http, body):
    answer = http.post("/jobs", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert answer.json()["code"] == "invalid_request"


def test_references_are_checked(http, spec, settings, tmp_path):
    assert post(http, {**spec, "dataset": "file:/etc/passwd"}).status_code == 403
    assert post(http, {**spec, "dataset": f"file:{settings.data_dir}/../x.jsonl"}).status_code == 403
    assert post(http, {**spec, "dataset": f"file:{settings.data_dir}/none.jsonl"}).status_code == 404
    (settings.data_dir / "link.jsonl").symlink_to("/etc/passwd")
    assert post(http, {**spec, "dataset": f"file:{settings.data_dir}/link.jsonl"}).status_code == 403
    assert post(http, {**spec, "dataset": "file:a\x00b"}).status_code == 422
    assert post(http, {**spec, "dataset": "file:" + "x/" * 2000}).status_code in (403, 404, 422)
    assert post(http, {**spec, "base_model": "model:art_none"}).status_code == 404
    assert post(http, {**spec, "base_model": "job:job_none/model"}).status_code == 404
    assert post(http, {**spec, "dataset": "s3://bucket/x"}).status_code == 403
    assert http.get("/jobs").json()["items"] == []


def test_a_job_may_build_on_another_ones_output(http, spec, settings, tmp_path):
    first = post(http, spec).json()
    second = post(http, {**spec, "base_model": f"job:{first['id']}/model"}).json()
    assert second["state"] == "waiting"
    finished(http, settings, tmp_path)
    assert http.get(f"/jobs/{second['id']}").json()["state"] == "queued"
    third = post(http, {**spec, "base_model": f"job:{first['id']}/model"}).json()
    assert third["state"] == "queued"
    lineage = third["inputs"][f"job:{first['id']}/model"]
    assert len(lineage["sha256"]) == 64
    assert post(http, {**spec, "base_model": f"job:{first['id']}/nothing"}).status_code == 404


def test_idempotency(http, spec):
    first = post(http, spec, **{"Idempotency-Key": "k"})
    again = post(http, spec, **{"Idempotency-Key": "k"})
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["id"] == again.json()["id"]
    other = post(http, {**spec, "epochs": 2}, **{"Idempotency-Key": "k"})
    assert other.status_code == 409


def test_an_idempotent_repeat_does_not_look_at_the_world_again(http, spec, settings):
    first = post(http, spec, **{"Idempotency-Key": "k"})
    (settings.data_dir / "pairs.jsonl").unlink()
    again = post(http, spec, **{"Idempotency-Key": "k"})
    assert (again.status_code, again.json()["id"]) == (200, first.json()["id"])
    assert post(http, spec).status_code == 404


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/jobs/JOB/events?cursor=99999999999999999999", 422),
        ("/jobs/JOB/logs?after=99999999999999999999", 422),
        ("/jobs?label=a%22b:c", 400),
        ("/jobs?label=:c", 400),
        ("/artifacts/" + "9" * 5000, 404),
    ],
)
def test_odd_numbers_and_names_are_the_callers_mistake(http, spec, path, status):
    job = post(http, spec).json()["id"]
    assert http.get(path.replace("JOB", job)).status_code == status
    assert http.get(f"/jobs/{job}/stream", headers={"Last-Event-ID": "9" * 5000}).status_code == 400
    assert post(http, {**spec, "base_model": "model:m@" + "9" * 30}).status_code == 404
    assert post(http, {**spec, "max_steps": 10**30}).status_code == 422
    assert post(http, {**spec, "labels": {"a": "\0"}}).status_code == 422


def test_lists_are_pages(http, spec):
    made = [
        post(http, {**spec, "labels": {"team": "a" if index < 2 else "b"}}).json()["id"] for index in range(5)
    ]
    first = http.get("/jobs?limit=3").json()
    rest = http.get(f"/jobs?limit=3&cursor={first['next_cursor']}").json()
    assert [job["id"] for job in first["items"] + rest["items"]] == made[::-1]
    assert rest["next_cursor"] is None
    assert [job["id"] for job in http.get("/jobs?label=team:a").json()["items"]] == [made[1], made[0]]
    assert http.get("/jobs?state=nonsense").status_code == 422
    assert http.get("/jobs?label=team").status_code == 400
    assert http.get("/jobs?cursor=garbage").status_code == 400
    assert http.get("/jobs?limit=0").status_code == 422


def test_cancel_pause_resume_retry(http, spec):
    job = post(http, spec).json()
    url = f"/jobs/{job['id']}"
    assert http.post(f"{url}/resume").status_code == 409
    assert http.post(f"{url}/pause").json()["state"] == "paused"
    assert http.post(f"{url}/resume").json()["state"] == "queued"
    cancelled = http.post(f"{url}/cancel")
    assert (cancelled.status_code, cancelled.json()["state"]) == (202, "cancelled")
    assert cancelled.json()["end_reason"]["code"] == "cancelled"
    assert http.post(f"{url}/cancel").status_code == 409
    assert http.post(f"{url}/retry").json()["state"] == "queued"
    assert http.post("/jobs/job_none/cancel").status_code == 404


def report(http, *events: Event, log: str = "", metrics=()):
    store = http.app.state.store
    held = store.leases.claim(CPU, 30)
    store.progress.record(held, ProgressUpdate(events=list(events), log=log, metrics=list(metrics)))
    return held


def test_events_and_stream(http, spec):
    job = post(http, spec).json()
    held = report(http, Event(type=EventType.PHASE, data={"phase": "training"}))
    page = http.get(f"/jobs/{job['id']}/events?limit=2").json()
    assert [event["type"] for event in page["items"]] == ["state", "state"]
    page = http.get(f"/jobs/{job['id']}/events?cursor={page['next_cursor']}").json()
    assert [event["type"] for event in page["items"]] == ["phase"]
    assert page["next_cursor"] == "3"  # the job goes on
    http.app.state.store.leases.finish(held, EndReason.SUCCEEDED)
    page = http.get(f"/jobs/{job['id']}/events?cursor=3").json()
    assert page["next_cursor"] is None
    with http.stream("GET", f"/jobs/{job['id']}/stream") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = list(response.iter_lines())
    assert [line for line in lines if line.startswith("id:")] == ["id: 1", "id: 2", "id: 3", "id: 4"]
    assert "event: phase" in lines
    with http.stream("GET", f"/jobs/{job['id']}/stream", headers={"Last-Event-ID": "3"}) as response:
        data = [json.loads(line[5:]) for line in response.iter_lines() if line.startswith("data:")]
    assert [(event["seq"], event["data"]["state"]) for event in data] == [(4, "succeeded")]
    assert http.get("/jobs/job_none/stream").status_code == 404
    assert http.get(f"/jobs/{job['id']}/stream", headers={"Last-Event-ID": "x"}).status_code == 400


def test_metrics_and_logs(http, spec):
    job = post(http, spec).json()
    now = datetime.now(UTC)
    report(
        http,
        log="".join(f"line {index}\n" for index in range(100)),
        metrics=[("loss", step, 9.0 if step == 500 else 1.0, now) for step in range(1000)],
    )
    url = f"/jobs/{job['id']}"
    [series] = http.get(f"{url}/metrics?name=loss&max_points=20").json()["items"]
    assert len(series["points"]) <= 20
    assert series["total_points"] == 1000
    assert 9.0 in [point["value"] for point in series["points"]]
    missing = http.get(f"{url}/metrics?name=lss")
    assert missing.status_code == 404
    assert "loss" in missing.json()["detail"]
    logs = http.get(f"{url}/logs?tail=2")
    assert logs.text == "line 98\nline 99\n"
    assert http.get(f"{url}/logs?after={logs.headers['x-log-cursor']}").text == ""


def test_files_with_etag_and_range(http, spec, settings, tmp_path):
    post(http, spec)
    job = finished(http, settings, tmp_path)
    [artifact] = http.get(f"/jobs/{job['id']}/artifacts").json()["items"]
    assert job["outputs"]["model"] == f"model:{artifact['id']}"
    [entry] = artifact["files"]
    url = f"/artifacts/{artifact['id']}/files/{entry['path']}"
    whole = http.get(url)
    assert whole.content == b"0123456789" * 1000
    assert whole.headers["etag"] == f'"{entry["sha256"]}"'
    assert http.get(url, headers={"If-None-Match": whole.headers["etag"]}).status_code == 304
    for asked, expected, where in (
        ("bytes=0-9", b"0123456789", "bytes 0-9/10000"),
        ("bytes=9998-", b"89", "bytes 9998-9999/10000"),
        ("bytes=-3", b"789", "bytes 9997-9999/10000"),
        ("bytes=9990-99999", b"0123456789", "bytes 9990-9999/10000"),
    ):
        part = http.get(url, headers={"Range": asked})
        assert (part.status_code, part.content, part.headers["content-range"]) == (206, expected, where)
        assert int(part.headers["content-length"]) == len(expected)
    assert http.get(url, headers={"Range": "bytes=10000-"}).status_code == 416
    assert http.get(url, headers={"Range": "bytes=0-1", "If-Range": '"other"'}).status_code == 200
    for other in ("lines=1-2", "bytes=5-2", "bytes=-", f"bytes={'9' * 5000}-"):
        assert http.get(url, headers={"Range": other}).status_code in (200, 416)
    head = http.head(url)
    assert (head.content, head.headers["content-length"]) == (b"", "10000")
    for wrong in ("manifest.json", "../../../reason.db", "%2e%2e/reason.db", "sub"):
        assert http.get(f"/artifacts/{artifact['id']}/files/{wrong}").status_code == 404
    assert http.get("/models").json()["items"][0]["id"] == artifact["id"]


def test_health(http, settings):
    assert http.get("/healthz").json() == {"status": "ok"}
    assert http.get("/readyz").json()["checks"] == {"database": "ok", "broker": "ok"}
    missing = http.get("/nothing")
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
    assert http.put("/jobs").status_code == 405


def test_readyz_says_what_is_away(settings):
    away = settings.model_copy(
        update={"database_url": "postgresql://127.0.0.1:9/x", "broker_url": "redis://127.0.0.1:9/0"}
    )
    with TestClient(create_app(away), raise_server_exceptions=False) as http:
        answer = http.get("/readyz")
        assert answer.status_code == 503
        assert all(check != "ok" for check in answer.json()["checks"].values())
        listing = http.get("/jobs")
        assert (listing.status_code, listing.json()["code"]) == (503, "unavailable")
        assert http.get("/healthz").status_code == 200


def test_a_broker_that_is_away_loses_no_job(settings, spec):
    upgrade(settings.database_url)
    away = settings.model_copy(update={"broker_url": "redis://127.0.0.1:9/0"})
    with TestClient(create_app(away)) as http:
        assert post(http, spec).status_code == 201
        assert http.get("/queue").json()["queued"] == 1


def test_a_body_beyond_the_limit(settings):
    upgrade(settings.database_url)
    with TestClient(create_app(settings.model_copy(update={"max_body_bytes": 1000}))) as http:
        for options in ({"content": b"x" * 2000}, {"content": iter([b"x" * 600, b"x" * 600])}):
            answer = http.post("/jobs", headers={"content-type": "application/json"}, **options)
            assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


def test_keys_and_scopes(http, spec):
    made = http.post("/keys", json={"name": "boss", "scopes": ["admin"]})
    boss = {"Authorization": f"Bearer {made.json()['key']}"}
    assert http.get("/jobs").status_code == 401
    assert http.get("/jobs", headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert http.get("/healthz").status_code == 200
    made = http.post("/keys", json={"name": "viewer", "scopes": ["read"]}, headers=boss).json()
    viewer = {"Authorization": f"Bearer {made['key']}"}
    assert http.get("/jobs", headers=viewer).status_code == 200
    assert http.post("/jobs", json=spec, headers=viewer).status_code == 403
    assert http.post("/keys", json={"name": "x"}, headers=viewer).status_code == 403
    assert http.post("/jobs", json=spec, headers=boss).status_code == 201
    listed = http.get("/keys", headers=boss).json()["items"]
    assert [key["name"] for key in listed] == ["boss", "viewer"]
    assert all("key" not in key for key in listed)
    assert http.delete(f"/keys/{made['id']}", headers=boss).status_code == 200
    assert http.get("/jobs", headers=viewer).status_code == 401


def test_without_a_key_only_this_machine_is_served(settings):
    upgrade(settings.database_url)
    app = create_app(settings)
    with TestClient(app, client=("203.0.113.7", 5000)) as http:
        assert http.get("/jobs").status_code == 403
        assert http.get("/healthz").status_code == 200
    with TestClient(app, client=("127.0.0.1", 5000), base_url="http://evil.example") as http:
        assert http.get("/jobs").status_code == 403
    with TestClient(app, client=("127.0.0.1", 5000), base_url="http://127.0.0.1:8000") as http:
        assert http.get("/jobs").status_code == 200


def test_a_page_of_another_site_cannot_post_without_saying_json(http, spec):
    answer = http.post("/jobs", content=json.dumps(spec), headers={"content-type": "text/plain"})
    assert answer.status_code == 422
    assert http.get("/jobs").json()["items"] == []


def test_what_no_worker_can_run_is_refused(http, spec):
    from core.store.fleet import Inventory

    gpu_job = {**spec, "resources": {"gpus": 1}}
    assert post(http, gpu_job).status_code == 201  # nobody is up: nobody knows
    http.app.state.store.workers.register(Inventory("host", 1, [], 10**9, ["cpu"]))
    refused = post(http, gpu_job)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["path"] == "resources.gpus"


def test_the_schema_is_shown(http):
    schema = http.get("/openapi.json").json()
    train = schema["components"]["schemas"]["TrainSpec"]
    assert train["properties"]["learning_rate"]["exclusiveMinimum"] == 0
    assert train["additionalProperties"] is False
    assert http.get("/docs").status_code == 200


def test_a_file_that_the_service_cannot_read_is_refused_at_once(http, spec, monkeypatch):
    """Root reads everything: what the system would say to another user is played."""
    monkeypatch.setattr("api.references.os.access", lambda path, mode: not str(path).endswith("pairs.jsonl"))
    answer = post(http, spec)
    assert answer.status_code == 403
    assert "dataset.ref: " in answer.json()["detail"]
    assert "cannot be read by the user" in answer.json()["detail"]
