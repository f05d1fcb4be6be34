"""Whose job is it: `submit` changes its own, `admin` all, and with PRIVATE_JOBS nobody else sees it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from core.artifacts import Library
from core.jobs.reasons import EndReason
from core.spec import parse_spec
from core.store.artifacts import NewArtifact
from core.store.attempts.leases import Capacity
from core.store.new_jobs import NewJob
from migrations import upgrade
from tests.held import held_by
from tests.specs import MINIMAL

ROWS = b'{"query": "a", "positive": "b"}\n' * 3
ACTIONS = ["cancel", "pause", "resume", "retry"]


@dataclass
class Service:
    """A running API with keys of three people, and a viewer's."""

    http: TestClient
    keys: dict[str, dict[str, str]]
    ids: dict[str, str]

    def call(self, who: str, method: str, path: str, **options: Any):
        headers = {**self.keys[who], **options.pop("headers", {})}
        return self.http.request(method, path, headers=headers, **options)

    def submit(self, who: str, spec: dict[str, Any] | None = None, **headers: str):
        return self.call(who, "POST", "/jobs", json=spec or MINIMAL["embed"], headers=headers)

    def upload(self, who: str, name: str = "rows", body: bytes = ROWS):
        return self.call(who, "POST", f"/datasets?name={name}", content=body)

    def finished(self, who: str, settings) -> dict[str, Any]:
        """A job of the caller that has succeeded with a model."""
        stages = {"only": {**MINIMAL["embed"], "name": "shared name", "priority": 1000}}
        pipeline = self.call(who, "POST", "/pipelines", json={"stages": stages}).json()
        job = {"id": pipeline["stages"]["only"]["job"]}
        folder = settings.data_dir / "made" / who
        folder.mkdir(parents=True)
        (folder / "weights.bin").write_text(who)
        made = Library(settings.artifact_url).publish(folder, "model", {})
        store = self.http.app.state.store
        claim = store.leases.claim(Capacity(worker="w"), 60)
        assert claim.job_id == job["id"]
        output = NewArtifact(
            "model",
            "model",
            made.uri,
            made.manifest.sha256,
            made.manifest.bytes,
            made.manifest.model_dump(mode="json"),
        )
        store.leases.finish(claim, EndReason.SUCCEEDED, outputs=[held_by(store, output)])
        return self.call(who, "GET", f"/jobs/{job['id']}").json()


def running(settings, database_url: str, **changes: Any) -> Iterator[Service]:
    upgrade(database_url)
    app = create_app(settings.model_copy(update={"database_url": database_url, **changes}))
    scopes = {"alice": ["submit"], "bob": ["submit"], "boss": ["admin"], "viewer": ["read"]}
    made = {name: app.state.store.keys.create(name, some) for name, some in scopes.items()}
    keys = {name: {"Authorization": f"Bearer {secret}"} for name, (_, secret) in made.items()}
    with TestClient(app, raise_server_exceptions=False) as http:
        yield Service(http, keys, {name: row.id for name, (row, _) in made.items()})


@pytest.fixture
def shared(settings) -> Iterator[Service]:
    yield from running(settings, settings.database_url)


@pytest.fixture
def private(settings, database_url) -> Iterator[Service]:
    yield from running(settings, database_url, private_jobs=True)


# -- changing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ACTIONS)
def test_only_the_owner_and_an_administrator_change_a_job(shared, action):
    job = shared.submit("alice").json()["id"]
    before = shared.call("bob", "GET", f"/jobs/{job}").json()  # reading is open
    refused = shared.call("bob", "POST", f"/jobs/{job}/{action}")
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert "another API key" in refused.json()["detail"]
    assert shared.call("viewer", "POST", f"/jobs/{job}/{action}").status_code == 403
    assert shared.call("bob", "GET", f"/jobs/{job}").json() == before
    # 409: allowed, but not from this state.
    for who in ("alice", "boss"):
        assert shared.call(who, "POST", f"/jobs/{job}/{action}").status_code in (202, 409)
    assert shared.call("boss", "POST", f"/jobs/{job}/cancel").status_code in (202, 409)


def test_a_job_from_before_there_were_keys_is_the_administrator_s(shared):
    [job, _] = [
        shared.http.app.state.store.jobs.submit(NewJob(spec=parse_spec(MINIMAL["embed"])))[0]
        for _ in range(2)
    ]
    assert shared.call("alice", "POST", f"/jobs/{job.id}/cancel").status_code == 403
    assert shared.call("boss", "POST", f"/jobs/{job.id}/cancel").status_code == 202


def test_without_keys_everything_is_the_caller_s(http):
    job = http.post("/jobs", json=MINIMAL["embed"]).json()["id"]
    assert http.post(f"/jobs/{job}/cancel").status_code == 202


def test_parts_of_a_mine_job_end_with_it_and_are_the_owner_s(shared):
    dataset = shared.upload("alice").json()["id"]
    mine = {"kind": "mine", "dataset": f"dataset:{dataset}", "parts": 2}
    whole = shared.submit("alice", mine).json()["id"]
    jobs = {job["id"]: job["state"] for job in shared.call("alice", "GET", "/jobs").json()["items"]}
    parts = set(jobs) - {whole}
    assert len(parts) == 2
    for part in parts:
        assert shared.call("bob", "POST", f"/jobs/{part}/cancel").status_code == 403
    assert shared.call("alice", "POST", f"/jobs/{whole}/cancel").status_code == 202
    jobs = {job["id"]: job["state"] for job in shared.call("alice", "GET", "/jobs").json()["items"]}
    assert set(jobs.values()) == {"cancelled"}


# -- seeing -------------------------------------------------------------------------------------------


def paths_with_ids(service: Service, ids: dict[str, str]) -> list[tuple[str, str]]:
    """(method, path) of every call that names a job, an artifact or a dataset."""
    found = []
    for path, operations in service.http.app.openapi()["paths"].items():
        if (
            "{" in path
            and "{key_id}" not in path
            and not path.startswith(("/recipes", "/webhooks", "/schedules"))
        ):
            found += [(method, path.format_map(ids)) for method in operations]
    return found


def test_what_is_another_key_s_is_not_there(private, settings):
    job = private.finished("alice", settings)
    model = job["outputs"]["model"].partition(":")[2]
    dataset = private.upload("alice").json()["id"]
    of_models = {
        "pipeline_id": job["pipeline"],
        "job_id": job["id"],
        "artifact_id": model,
        "dataset": dataset,
        "model": model,
        "path": "weights.bin",
    }
    of_datasets = {**of_models, "artifact_id": dataset, "path": "data.jsonl", "dataset": "rows"}
    for ids in (of_models, of_datasets):
        calls = paths_with_ids(private, ids)
        assert len(calls) >= 19
        for method, path in calls:
            body = {"json": {"priority": 1}} if method == "patch" else {}
            assert private.call("bob", method, path, **body).status_code == 404, (method, path)
            allowed = 404 if method == "get" else 403
            assert private.call("viewer", method, path, **body).status_code == allowed, (method, path)
            if method == "delete":
                continue
            for who in ("alice", "boss"):
                status = private.call(who, method, path, **body).status_code
                assert status in (200, 202, 409), (who, method, path)
    for artifact in (model, dataset):
        for what in ("pin", "current"):
            assert private.call("boss", "DELETE", f"/artifacts/{artifact}/{what}").status_code == 204
    assert private.call("bob", "DELETE", f"/artifacts/{model}").status_code == 404
    assert private.call("alice", "DELETE", f"/artifacts/{model}").status_code == 204
    assert private.call("boss", "DELETE", f"/artifacts/{dataset}").status_code == 204
    assert private.call("alice", "DELETE", f"/pipelines/{job['pipeline']}").status_code == 204


def test_reading_another_key_s_rows_gives_no_right_to_delete_them(shared, settings):
    job = shared.finished("alice", settings)
    model = job["outputs"]["model"].partition(":")[2]
    paths = (f"/artifacts/{model}", f"/artifacts/{model}/pin", f"/pipelines/{job['pipeline']}")
    for path in paths:
        assert shared.call("bob", "DELETE", path).status_code == 403, path
    assert shared.call("bob", "PUT", f"/artifacts/{model}/pin").status_code == 403
    assert shared.call("alice", "PUT", f"/artifacts/{model}/pin").json()["pinned_at"]
    refused = shared.call("boss", "DELETE", f"/artifacts/{model}")
    assert (refused.status_code, "pinned" in refused.json()["detail"]) == (409, True)


def test_lists_show_the_caller_s_own(private, settings):
    for who in ("alice", "bob"):
        private.finished(who, settings)
        private.upload(who, f"rows of {who}")
    for path in ("/jobs", "/models", "/datasets"):
        counts = {who: len(private.call(who, "GET", path).json()["items"]) for who in private.keys}
        assert counts == {"alice": 1, "bob": 1, "boss": 2, "viewer": 0}, path
    [model] = private.call("alice", "GET", "/models").json()["items"]
    cursor = private.call("boss", "GET", "/models?limit=1").json()["next_cursor"]
    following = private.call("alice", "GET", f"/models?cursor={cursor}").json()["items"]
    assert {item["id"] for item in following} <= {model["id"]}


def test_references_reach_the_caller_s_own_alone(private, settings):
    job = private.finished("alice", settings)
    model = job["outputs"]["model"].partition(":")[2]
    dataset = private.upload("alice").json()["id"]
    train = {"kind": "train", "base_model": "org/m", "dataset": f"dataset:{dataset}"}
    texts = MINIMAL["embed"]
    specs = [
        {**texts, "model": f"model:{model}"},
        {**texts, "model": f"artifact:{model}"},
        {**texts, "model": "model:shared name"},
        {**texts, "model": "model:shared name@1"},
        {**texts, "model": f"job:{job['id']}/model"},
        {**texts, "depends_on": [job["id"]]},
        train,
        {**train, "dataset": "dataset:rows"},
        {**train, "dataset": [f"dataset:{dataset}"]},
        {"kind": "evaluate", "models": ["bm25"], "datasets": [{"ref": "dataset:rows@1"}]},
        {"kind": "mine", "dataset": "dataset:rows", "parts": 2},
        {"kind": "prepare", "source": f"dataset:{dataset}"},
    ]
    for spec in specs:
        refused = private.submit("bob", spec)
        assert (refused.status_code, refused.json()["code"]) == (404, "not_found"), spec
        assert private.submit("alice", spec).status_code == 201, spec
    assert private.call("bob", "POST", "/jobs/estimate", json=train).status_code == 404
    assert private.call("alice", "POST", "/jobs/estimate", json=train).status_code == 200
    assert private.call("bob", "GET", "/jobs").json()["items"] == []


def test_the_same_content_sent_with_two_keys(private):
    first = private.upload("alice").json()
    other = private.upload("bob")
    assert (other.status_code, other.json()["id"] != first["id"]) == (201, True)
    assert other.json()["sha256"] == first["sha256"]
    for who, own in (("alice", first), ("bob", other.json())):
        again = private.upload(who)
        assert (again.status_code, again.json()["id"]) == (200, own["id"])
        assert private.call(who, "GET", "/datasets/rows").json()["id"] == own["id"]


def test_names_mean_the_caller_s_newest(private):
    mine = private.upload("alice").json()
    private.upload("bob", body=ROWS + ROWS)
    assert private.call("alice", "GET", "/datasets/rows").json()["id"] == mine["id"]
    job = private.submit("alice", {"kind": "prepare", "source": "dataset:rows"}).json()
    assert job["inputs"]["dataset:rows"]["artifact"] == mine["id"]


@pytest.mark.parametrize("mode", ["shared", "private"])
def test_an_idempotency_key_belongs_to_its_api_key(request, settings, mode):
    changes = {"private_jobs": mode == "private"}
    for service in running(settings, settings.database_url, **changes):
        first = service.submit("alice", **{"Idempotency-Key": "k"})
        other = service.submit("bob", **{"Idempotency-Key": "k"})
        again = service.submit("alice", **{"Idempotency-Key": "k"})
        assert (first.status_code, other.status_code, again.status_code) == (201, 201, 200)
        assert again.json()["id"] == first.json()["id"] != other.json()["id"]


def test_positions_and_depths_count_everybody_s(private):
    private.submit("alice")
    job = private.submit("bob").json()
    assert job["queue_position"] == 1
    assert private.call("bob", "GET", "/queue").json()["queued"] == 2


def test_a_made_artifact_has_the_job_s_owner(private, settings):
    private.finished("alice", settings)
    [model] = private.http.app.state.store.artifacts.page("model")[0]
    assert model.owner == private.ids["alice"]
