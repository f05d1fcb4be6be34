"""Pipelines over HTTP: validation, creation, the state that follows from the jobs, cancel and retry."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from core.jobs.events import Event, Notice
from core.jobs.reasons import EndReason
from core.store.attempts.leases import Capacity
from core.store.attempts.progress import ProgressUpdate
from tests.api.submitting import run_next
from tests.specs import MINIMAL

TRAIN = {"kind": "train", "base_model": "o/m", "dataset": "stage:mine/dataset"}
STAGES = {
    "train": TRAIN,
    "mine": {"kind": "mine", "dataset": "hf:o/pairs"},
    "compare": {"kind": "evaluate", "models": ["stage:train/model", "o/m"], "datasets": ["beir:scifact"]},
    "embed": {"kind": "embed", "model": "stage:train/model", "corpus": "hf:o/docs"},
}


def post(http, stages, **more):
    headers = more.pop("headers", None)
    return http.post("/pipelines", json={"stages": stages, **more}, headers=headers)


def create(http, stages=STAGES, **more):
    answer = post(http, stages, **more)
    assert answer.status_code == 201, answer.text
    return answer.json()


def show(http, pipeline):
    return http.get(f"/pipelines/{pipeline['id']}").json()


def states(view) -> dict[str, str]:
    return {name: stage["state"] for name, stage in view["stages"].items()}


def test_stages_become_jobs_that_wait_for_each_other(on_both):
    made = create(on_both, name="nightly", labels={"team": "search"})
    assert list(made["stages"]) == list(STAGES)  # as they were posted
    assert states(made) == {"train": "waiting", "mine": "queued", "compare": "waiting", "embed": "waiting"}
    assert made["state"] == "queued"
    assert {name: stage["needs"] for name, stage in made["stages"].items()} == {
        "train": ["mine"],
        "mine": [],
        "compare": ["train"],
        "embed": ["train"],
    }
    jobs = {name: stage["job"] for name, stage in made["stages"].items()}
    spec = on_both.get(f"/jobs/{jobs['compare']}").json()["spec"]
    assert spec["models"][0]["ref"] == f"job:{jobs['train']}/model"
    assert spec["labels"] == {"team": "search"}
    listed = on_both.get("/jobs", params={"pipeline": made["id"], "state": "waiting"}).json()["items"]
    assert {job["stage"] for job in listed} == {"train", "compare", "embed"}
    assert on_both.get("/jobs", params={"pipeline": "pipe_0"}).json()["items"] == []
    assert run_next(on_both) == jobs["mine"]
    now = show(on_both, made)
    assert (now["state"], now["progress"]) == (
        "running",
        {"succeeded": 1, "stages": 4, "fraction": 0.25, "eta_seconds": None},
    )
    assert now["outputs"]["mine/dataset"] == on_both.get(f"/jobs/{jobs['mine']}").json()["outputs"]["dataset"]
    assert run_next(on_both) == jobs["train"]
    assert {run_next(on_both), run_next(on_both)} == {jobs["compare"], jobs["embed"]}
    ended = show(on_both, made)
    assert ended["state"] == "succeeded"
    assert ended["finished_at"] is not None
    assert ended["end_reason"] is None


def test_a_failed_stage_ends_what_needs_it_and_a_retry_goes_on_from_there(on_both):
    made = create(on_both)
    run_next(on_both)
    run_next(on_both, EndReason.BAD_DATA, "line 3 is empty")
    ended = show(on_both, made)
    assert states(ended) == {
        "train": "failed",
        "mine": "succeeded",
        "compare": "cancelled",
        "embed": "cancelled",
    }
    assert ended["state"] == "failed"
    assert ended["end_reason"] == {"code": "bad_data", "message": "Stage train: line 3 is empty"}
    assert ended["stages"]["embed"]["end_reason"]["code"] == "dependency_failed"
    again = on_both.post(f"/pipelines/{made['id']}/retry").json()
    assert states(again) == {"train": "queued", "mine": "succeeded", "compare": "waiting", "embed": "waiting"}
    assert (again["state"], again["finished_at"]) == ("running", None)
    for _ in range(3):
        run_next(on_both)
    assert show(on_both, made)["state"] == "succeeded"
    assert on_both.post(f"/pipelines/{made['id']}/retry").status_code == 409
    assert on_both.post(f"/pipelines/{made['id']}/cancel").status_code == 409


def test_cancelling_ends_every_stage_for_itself(on_both):
    made = create(on_both)
    assert on_both.post(f"/pipelines/{made['id']}/retry").status_code == 409  # it has not ended
    ended = on_both.post(f"/pipelines/{made['id']}/cancel").json()
    assert set(states(ended).values()) == {"cancelled"}
    assert {stage["end_reason"]["code"] for stage in ended["stages"].values()} == {"cancelled"}
    assert ended["state"] == "cancelled"


def test_one_numbering_of_all_events(on_both):
    made = create(on_both)
    store = on_both.app.state.store
    claim = store.leases.claim(Capacity("w"), 60)
    store.progress.record(claim, ProgressUpdate(events=[Event.of(Notice(message=str(n))) for n in range(3)]))
    store.leases.finish(claim, EndReason.SUCCEEDED, None, [])
    found = on_both.get(f"/pipelines/{made['id']}/events").json()
    seqs = [event["seq"] for event in found["items"]]
    assert seqs == list(range(1, len(seqs) + 1))
    assert [event["data"]["message"] for event in found["items"] if event["type"] == "notice"] == [
        "0",
        "1",
        "2",
    ]
    told = {(event["stage"], event["data"]["state"]) for event in found["items"] if event["type"] == "state"}
    assert {("mine", "succeeded"), ("train", "queued"), ("embed", "waiting")} <= told
    assert found["next_cursor"] == str(seqs[-1])  # it has not ended
    rest = on_both.get(f"/pipelines/{made['id']}/events", params={"cursor": seqs[-2]}).json()["items"]
    assert [event["seq"] for event in rest] == seqs[-1:]


def test_the_stream_ends_with_the_pipeline_and_resumes(http):
    made = create(http)
    http.post(f"/pipelines/{made['id']}/cancel")
    with http.stream("GET", f"/pipelines/{made['id']}/stream") as response:
        lines = [line for line in response.iter_lines() if line.startswith("data:")]
    seqs = [json.loads(line[5:])["seq"] for line in lines]
    assert seqs == list(range(1, len(seqs) + 1))
    with http.stream("GET", f"/pipelines/{made['id']}/stream", headers={"Last-Event-ID": "3"}) as response:
        rest = [line for line in response.iter_lines() if line.startswith("data:")]
    assert rest == lines[3:]


MINE = STAGES["mine"]


@pytest.mark.parametrize(
    ("stage", "change", "path", "words"),
    [
        ("train", {"dataset": "stage:nobody/dataset"}, "dataset", "no stage 'nobody'"),
        ("train", {"dataset": "stage:mine/rows"}, "dataset", "no output 'rows'; it has dataset"),
        ("train", {"dataset": "stage:mine"}, "dataset", "form stage:NAME/OUTPUT"),
        ("train", {"base_model": "stage:mine/dataset"}, "base_model", "a model is needed"),
        ("mine", {"dataset": "stage:train/report"}, "dataset", "a dataset is needed"),
        ("mine", {"model": "stage:embed/embeddings"}, "model", "a model is needed"),
        ("mine", {"depends_on": ["stage:mine"]}, "", "depends on itself: mine needs mine"),
        ("mine", {"depends_on": ["stage:x"]}, "depends_on.0", "no stage 'x'"),
        ("mine", {"depends_on": ["stage:trian"]}, "depends_on.0", "did you mean train?"),
        ("embed", {"depends_on": ["stage:mine", 7]}, "depends_on.1", "valid string"),
        ("mine", {"labels": {f"l{n}": "" for n in range(33)}}, "labels", "at most 32"),
        ("mine", {"depends_on": ["stage:train/model"]}, "depends_on.0", "without an output"),
        ("train", {"epohcs": 2}, "epohcs", "did you mean epochs?"),
        ("train", {"kind": "trian"}, "kind", "must be one of prepare, mine"),
        ("train", {"kind": None}, "kind", "must be one of"),
        ("a/b", MINE, "", "must"),
    ],
)
def test_what_does_not_go_together_is_refused_with_its_path(http, stage, change, path, words):
    answer = post(http, {**STAGES, stage: {**STAGES.get(stage, {}), **change}})
    assert answer.status_code == 422, answer.text
    found = {item["path"]: item["message"] for item in answer.json()["errors"]}
    assert words in found[f"stages.{stage}" + (f".{path}" if path else "")], found
    assert http.get("/jobs").json()["items"] == []
    assert http.get("/pipelines").json()["items"] == []


def test_a_cycle_is_told_from_its_first_stage_on(http):
    answer = post(http, {**STAGES, "mine": {**MINE, "model": "stage:train/model"}})
    [problem] = answer.json()["errors"]
    assert problem["path"] == "stages.train"
    assert problem["message"] == "depends on itself: train needs mine needs train"


def test_a_dry_run_has_no_model(http):
    answer = post(http, {**STAGES, "train": {**TRAIN, "dry_run": True}})
    assert "no output 'model'; it has report" in answer.json()["errors"][0]["message"]


def test_a_stage_that_names_what_is_not_there_adds_nothing(http):
    stages = {**STAGES, "mine": {"kind": "mine", "dataset": "file:/nowhere/rows.jsonl"}}
    answer = post(http, stages)
    assert answer.status_code == 403
    assert answer.json()["detail"].startswith("stages.mine: dataset.ref: ")
    assert http.get("/jobs").json()["items"] == []


def test_two_hundred_stages_and_a_diamond(on_both):
    chain = {"s0": STAGES["mine"]}
    for number in range(1, 200):
        chain[f"s{number}"] = {"kind": "mine", "dataset": f"stage:s{number - 1}/dataset"}
    made = create(on_both, dict(reversed(chain.items())))
    assert len(made["stages"]) == 200
    for number in range(3):
        assert run_next(on_both) == made["stages"][f"s{number}"]["job"]
    on_both.post(f"/pipelines/{made['id']}/cancel")
    diamond = {
        "top": STAGES["mine"],
        "left": {**TRAIN, "dataset": "stage:top/dataset"},
        "right": {**TRAIN, "dataset": "stage:top/dataset"},
        "bottom": {
            "kind": "evaluate",
            "models": ["stage:left/model", "stage:right/model"],
            "datasets": ["beir:nq"],
        },
    }
    made = create(on_both, diamond)
    run_next(on_both)
    run_next(on_both)
    assert states(show(on_both, made))["bottom"] == "waiting"
    run_next(on_both)
    assert states(show(on_both, made))["bottom"] == "queued"


def test_the_same_key_makes_one_pipeline(on_both):
    key = {"Idempotency-Key": "once"}
    with ThreadPoolExecutor(8) as pool:
        start = threading.Barrier(8)

        def once(_):
            start.wait()
            return post(on_both, STAGES, headers=key)

        answers = list(pool.map(once, range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(on_both.get("/jobs").json()["items"]) == 4
    assert post(on_both, {"mine": STAGES["mine"]}, headers=key).status_code == 409
    assert on_both.post("/jobs", json=MINIMAL["embed"], headers=key).status_code == 409


def test_lists_filter_and_page(on_both):
    first = create(on_both, {"mine": STAGES["mine"]}, labels={"a": "1"})
    second = create(on_both, {"mine": STAGES["mine"]})
    on_both.post(f"/pipelines/{first['id']}/cancel")
    ids = [item["id"] for item in on_both.get("/pipelines").json()["items"]]
    assert ids == [second["id"], first["id"]]
    assert [i["id"] for i in on_both.get("/pipelines?state=cancelled").json()["items"]] == [first["id"]]
    assert [i["id"] for i in on_both.get("/pipelines?label=a:1").json()["items"]] == [first["id"]]
    page = on_both.get("/pipelines?limit=1").json()
    assert (
        on_both.get(f"/pipelines?limit=1&cursor={page['next_cursor']}").json()["items"][0]["id"]
        == first["id"]
    )
    assert on_both.get("/pipelines?cursor=x").status_code == 400
    assert on_both.get("/pipelines/pipe_0").status_code == 404


def test_a_stage_may_be_divided_into_parts(on_both):
    stages = {"mine": {**STAGES["mine"], "parts": 2}, "train": TRAIN}
    made = create(on_both, stages)
    assert states(made) == {"mine": "waiting", "train": "waiting"}
    run_next(on_both)
    run_next(on_both, EndReason.BAD_MODEL, "no such model")
    ended = show(on_both, made)
    assert (ended["state"], states(ended)) == ("cancelled", {"mine": "cancelled", "train": "cancelled"})
    again = on_both.post(f"/pipelines/{made['id']}/retry").json()
    assert states(again) == {"mine": "waiting", "train": "waiting"}
    for _ in range(3):
        run_next(on_both)
    assert show(on_both, made)["state"] == "succeeded"
