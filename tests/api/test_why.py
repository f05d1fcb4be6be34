"""Why a job does not run, and what can be changed while it waits."""

import pytest

from core.jobs.hosts import Gpu
from core.jobs.reasons import EndReason
from core.store.attempts.leases import Capacity, RetryPolicy
from core.store.fleet import Inventory
from tests.specs import MINIMAL


def submit(http, **changes) -> str:
    answer = http.post("/jobs", json={**MINIMAL["embed"], **changes})
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def why(http, job: str) -> dict:
    found = http.get(f"/jobs/{job}/why").json()
    return {**found, "codes": [reason["code"] for reason in found["reasons"]]}


def register(http, gpus=(), slots=1) -> str:
    inventory = Inventory(host="box", slots=slots, gpus=list(gpus), memory_bytes=64 * 10**9, queues=["cpu"])
    return http.app.state.store.workers.register(inventory)


def claim(http, worker="w"):
    found = http.app.state.store.leases.claim(Capacity(worker), 60)
    assert found is not None
    return found


def test_a_queued_job_says_what_it_waits_for(on_both, monkeypatch):
    first, second = submit(on_both), submit(on_both)
    assert (why(on_both, first)["codes"], why(on_both, first)["position"]) == (["no_worker"], 0)
    worker = register(on_both)
    assert why(on_both, first)["codes"] == ["starting"]
    assert why(on_both, first)["eta_seconds"] == 0
    assert why(on_both, second)["codes"] == ["behind_others"]
    held = claim(on_both, worker)
    assert why(on_both, first) == {"reasons": [], "position": None, "eta_seconds": None, "codes": []}
    assert why(on_both, second)["codes"] == ["workers_busy"]
    leases = on_both.app.state.store.leases
    monkeypatch.setattr(leases, "_retry", RetryPolicy(base_seconds=600, cap_seconds=600))
    leases.finish(held, EndReason.STORAGE_FAILED, "the disk is full")
    again = why(on_both, first)
    assert again["codes"][0] == "delayed"
    assert "after attempt 1" in again["reasons"][0]["message"]
    on_both.app.state.store.workers.heartbeat(worker, gpus=[], stopping=True)
    assert "workers_stopping" in why(on_both, second)["codes"]


def test_a_job_that_needs_gpus(http):
    gpu = Gpu(uuid="GPU-1", index=0, name="H100", memory_bytes=80 * 10**9)
    register(http, [gpu], slots=2)
    job = submit(http, resources={"gpus": 1})
    assert why(http, job)["codes"] == ["gpus_busy"]
    store = http.app.state.store
    for worker, _ in store.workers.alive(60):
        store.workers.remove(worker.id)
    register(http)
    assert why(http, job)["codes"] == ["no_gpu"]


def test_dependencies_pauses_and_ends(http):
    parents = [submit(http) for _ in range(7)]
    child = submit(http, depends_on=parents)
    found = why(http, child)
    assert found["codes"] == ["waits_for_job"] * 6
    assert found["reasons"][0]["message"] == f"Waits for job {parents[0]}, which is queued."
    assert found["reasons"][-1]["message"] == "Waits for 2 more jobs."
    http.post(f"/jobs/{parents[0]}/pause")
    assert why(http, parents[0])["codes"] == ["paused"]
    http.post(f"/jobs/{parents[1]}/cancel")
    assert why(http, child)["codes"] == ["dependency_failed"]
    assert why(http, parents[1])["codes"] == ["cancelled"]


def test_a_higher_priority_is_claimed_first(on_both):
    first, second = submit(on_both), submit(on_both)
    changed = on_both.patch(f"/jobs/{second}", json={"priority": 5, "name": "urgent", "labels": {"a": "b"}})
    assert changed.status_code == 200, changed.text
    view = changed.json()
    assert (view["priority"], view["name"], view["labels"]) == (5, "urgent", {"a": "b"})
    assert (view["spec"]["priority"], view["spec"]["name"]) == (5, "urgent")
    assert why(on_both, first)["position"] == 1
    assert claim(on_both).job_id == second
    removed = on_both.patch(f"/jobs/{second}", json={"name": None}).json()
    assert (removed["name"], removed["labels"], removed["state"]) == (None, {"a": "b"}, "running")
    events = on_both.get(f"/jobs/{second}/events").json()["items"]
    assert events[-1]["data"]["message"] == "Changed on request: name None"


def test_parts_have_the_priority_of_the_whole(http):
    mine = {"kind": "mine", "dataset": "hf:o/pairs", "parts": 2}
    whole = http.post("/jobs", json=mine).json()["id"]
    before = submit(http, priority=3)
    http.patch(f"/jobs/{whole}", json={"priority": 4, "labels": {}})
    parts = [job for job in http.get("/jobs").json()["items"] if job["labels"].get("part_of") == whole]
    assert [part["priority"] for part in parts] == [4, 4]
    assert claim(http).job_id in {part["id"] for part in parts}
    assert before not in {part["id"] for part in parts}


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, ""),
        ({"priority": 1001}, "priority"),
        ({"labels": {"a b": "c"}}, "labels"),
        ({"kind": "x"}, "kind"),
    ],
)
def test_what_cannot_be_changed(http, body, path):
    answer = http.patch(f"/jobs/{submit(http)}", json=body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["path"].startswith(path)
