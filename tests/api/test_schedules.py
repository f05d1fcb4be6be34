"""Pipelines that begin later, or again and again, and what is promoted of them."""

import hashlib
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

import api.scheduler
from api.scheduler import Scheduler
from core.artifacts import Library
from core.errors import StorageFailure
from core.jobs.reasons import EndReason
from core.spec.pipelines.schedule import CronSchedule
from core.store.artifacts import NewArtifact
from core.store.attempts.leases import Capacity
from core.store.schema.tables import Schedule
from tests.api.submitting import run_next, upload_rows
from tests.held import held_by
from tests.specs import MINIMAL

CPU = Capacity("w")
STAGES = {
    "first": {"kind": "embed", "model": "o/m", "corpus": "dataset:pairs"},
    "then": {**MINIMAL["embed"], "depends_on": ["stage:first"]},
}


@pytest.fixture
def http(on_both):
    upload_rows(on_both)
    return on_both


@pytest.fixture
def scheduler(http, settings) -> Scheduler:
    woken = []
    made = Scheduler(settings, http.app.state.store, Library(settings.artifact_url), woken.append)
    made.woken = woken
    return made


def add(http, cron="0 3 * * SUN", **more):
    body = {"stages": STAGES, "schedule": cron, **more}
    return http.post("/pipelines", json=body)


def let_its_moment_come(http, schedule: str, seconds: float = 1.0) -> datetime:
    database = http.app.state.store.database
    with database.write() as session:
        moved = update(Schedule).where(Schedule.id == schedule)
        session.execute(moved.values(next_at=database.time(-seconds)))
    return http.app.state.store.schedules.get(schedule).next_at


# -- later ---------------------------------------------------------------------------------------------------


def test_a_pipeline_does_not_begin_before_its_time(http):
    store = http.app.state.store
    begin = datetime.now(UTC) + timedelta(hours=5)
    made = http.post("/pipelines", json={"stages": STAGES, "not_before": begin.isoformat()}).json()
    assert store.leases.claim(CPU, 60) is None
    why = http.get(f"/jobs/{made['stages']['first']['job']}/why").json()
    assert why["reasons"][0]["code"] == "not_before"
    assert begin.isoformat(timespec="minutes")[:16] in why["reasons"][0]["message"].replace(" ", "T")
    past = (datetime.now(UTC) - timedelta(hours=5)).isoformat()
    http.post("/pipelines", json={"stages": STAGES, "not_before": past})
    claim = store.leases.claim(CPU, 60)
    assert claim is not None
    store.leases.finish(claim, EndReason.BAD_DATA)
    assert http.post(f"/pipelines/{made['id']}/cancel").status_code == 202


@pytest.mark.parametrize(
    "moment",
    [
        "2030-01-01T00:00:00",
        "tomorrow",
        7,
        "1900000000",
        "2030-13-01T00:00:00Z",
        "9999-12-31T23:59:59-12:00",
        "1066-10-14T09:00:00Z",
    ],
)
def test_a_moment_has_a_time_zone(http, moment):
    answer = http.post("/pipelines", json={"stages": STAGES, "not_before": moment})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["path"] == "not_before"


def test_who_waits_for_another_job_waits_for_the_moment_too(http):
    store = http.app.state.store
    first = http.post("/jobs", json=MINIMAL["embed"]).json()
    begin = (datetime.now(UTC) + timedelta(hours=5)).isoformat()
    stages = {"only": {**MINIMAL["embed"], "depends_on": [first["id"]]}}
    made = http.post("/pipelines", json={"stages": stages, "not_before": begin}).json()
    assert run_next(http) == first["id"]
    job = made["stages"]["only"]["job"]
    assert http.get(f"/jobs/{job}").json()["state"] == "queued"
    assert store.leases.claim(CPU, 60) is None
    other = http.post("/jobs", json=MINIMAL["embed"]).json()
    assert other["queue_position"] == 0, "one whose time has not come stands before nobody"
    http.post(f"/jobs/{other['id']}/cancel")
    http.post(f"/pipelines/{made['id']}/cancel")
    http.post(f"/pipelines/{made['id']}/retry")
    http.post(f"/jobs/{job}/pause")
    http.post(f"/jobs/{job}/resume")
    assert http.get(f"/jobs/{job}").json()["state"] == "queued"
    assert store.leases.claim(CPU, 60) is None


# -- again and again -----------------------------------------------------------------------------------------


def test_a_schedule_is_made_shown_and_deleted(http):
    answer = add(http, {"cron": "30 2 * * *", "timezone": "Europe/Berlin"}, name="nightly")
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert answer.headers["location"] == f"/schedules/{made['id']}"
    assert (made["name"], made["cron"], made["timezone"]) == ("nightly", "30 2 * * *", "Europe/Berlin")
    next_at = datetime.fromisoformat(made["next_at"])
    assert next_at == CronSchedule(cron="30 2 * * *", timezone="Europe/Berlin").next_after(datetime.now(UTC))
    assert made["pipeline"] == {"name": "nightly", "stages": STAGES}
    assert http.get("/pipelines").json()["items"] == [], "nothing runs before its time"
    assert http.get("/schedules").json()["items"] == [made]
    assert http.get(f"/schedules/{made['id']}").json() == made
    again = add(http, {"cron": "30 2 * * *", "timezone": "Europe/Berlin"}, name="nightly")
    assert (again.status_code, again.json()["id"]) == (200, made["id"]), "equal schedules are one"
    assert add(http, "0 4 * * *", name="nightly").json()["id"] != made["id"]
    assert http.delete(f"/schedules/{made['id']}").status_code == 204
    assert http.get(f"/schedules/{made['id']}").status_code == 404
    assert http.delete(f"/schedules/{made['id']}").status_code == 404


@pytest.mark.parametrize(
    ("schedule", "path", "says"),
    [
        ("every sunday at three", "schedule.cron", "five fields"),
        ("61 * * * *", "schedule.cron", "Bad minute"),
        ("* * * * * *", "schedule.cron", "five fields"),
        ("0 0 31 2 *", "schedule.cron", "no cron expression"),
        ({"cron": "0 3 * * *", "timezone": "Mars/Olympus"}, "schedule.timezone", "no time zone"),
        ({"cron": "0 3 * * *", "timezone": "/etc/passwd"}, "schedule.timezone", "no time zone"),
        ({"cron": "0 3 * * *", "every": 2}, "schedule.every", "unknown field"),
        (7, "schedule", "valid dictionary"),
    ],
)
def test_what_is_no_schedule(http, schedule, path, says):
    answer = add(http, schedule)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["path"] == path
    assert says in answer.text


def test_what_could_not_run_is_refused_today(http):
    unknown = {"only": {**STAGES["first"], "corpus": "dataset:unknown"}}
    assert add(http, stages=unknown).status_code == 404
    assert add(http, stages={"only": {"kind": "embed"}}).status_code == 422
    both = add(http, not_before="2030-01-01T00:00:00Z")
    assert (both.status_code, "leave not_before out" in both.text) == (422, True)
    assert http.get("/schedules").json()["items"] == []


def test_each_moment_makes_one_pipeline_of_what_is_there_then(http, scheduler, settings):
    schedule = add(http, name="weekly").json()["id"]
    scheduler.run_due()
    assert http.get("/pipelines").json()["items"] == []
    moment = let_its_moment_come(http, schedule)
    upload_rows(http, text='{"query": "newer", "positive": "rows"}\n' * 3)
    store = http.app.state.store
    stale = store.schedules.get(schedule)
    scheduler.run_due()
    [made] = http.get("/pipelines").json()["items"]
    assert made["name"] == "weekly"
    first = http.get(f"/jobs/{made['stages']['first']['job']}").json()
    assert first["inputs"]["dataset:pairs"]["version"] == 2, "the newest upload"
    assert {job.stage for job in scheduler.woken} == {"first", "then"}
    told = http.get(f"/schedules/{schedule}").json()
    assert (told["last_pipeline"], told["last_problem"]) == (made["id"], None)
    assert datetime.fromisoformat(told["next_at"]) > moment
    scheduler.run_due()
    # Another server that looked before the moment was noted, or this one, killed before it noted it:
    assert scheduler.run(stale, moment).pipeline == made["id"]
    assert len(http.get("/pipelines").json()["items"]) == 1
    assert http.get(f"/schedules/{schedule}").json()["next_at"] == told["next_at"]


def test_a_pipeline_that_has_not_ended_is_not_overtaken(http, scheduler):
    schedule = add(http).json()["id"]
    let_its_moment_come(http, schedule)
    scheduler.run_due()
    [made] = http.get("/pipelines").json()["items"]
    before = let_its_moment_come(http, schedule)
    scheduler.run_due()
    told = http.get(f"/schedules/{schedule}").json()
    assert told["last_pipeline"] == made["id"]
    assert f"{made['id']}, has not ended" in told["last_problem"]
    assert datetime.fromisoformat(told["next_at"]) > before
    refused = http.post(f"/schedules/{schedule}/run")
    assert (refused.status_code, "has not ended" in refused.text) == (409, True)
    http.post(f"/pipelines/{made['id']}/cancel")
    ran = http.post(f"/schedules/{schedule}/run")
    assert ran.status_code == 202, ran.text
    assert ran.json()["last_pipeline"] != made["id"]
    assert ran.json()["last_problem"] is None
    assert ran.json()["next_at"] == told["next_at"], "its times stay as they are"


def test_what_fails_at_its_moment_is_said_and_tried_the_next_time(http, scheduler):
    schedule = add(http).json()["id"]
    [uploaded] = http.get("/datasets").json()["items"]
    assert http.delete(f"/artifacts/{uploaded['id']}").status_code == 204
    let_its_moment_come(http, schedule, seconds=100 * 86_400)
    scheduler.run_due()
    told = http.get(f"/schedules/{schedule}").json()
    assert "stages.first: Dataset not found: pairs" in told["last_problem"]
    assert datetime.fromisoformat(told["next_at"]) > datetime.now(UTC), "missed moments are made up for once"
    upload_rows(http)
    let_its_moment_come(http, schedule)
    scheduler.run_due()
    told = http.get(f"/schedules/{schedule}").json()
    assert told["last_problem"] is None
    assert told["last_pipeline"]


def test_one_schedule_that_fails_holds_up_no_other(http, scheduler, monkeypatch):
    """Also where a storage does not answer: that one is tried again for a while."""
    first, second = (add(http, name=name).json()["id"] for name in ("first", "second"))
    for schedule in (first, second):
        let_its_moment_come(http, schedule, seconds=2.0 if schedule == first else 1.0)
    submit, error = api.scheduler.submit_pipeline, StorageFailure("s3://away does not answer")

    def failing(spec, *rest):
        if spec.name == "first":
            raise error
        return submit(spec, *rest)

    monkeypatch.setattr(api.scheduler, "submit_pipeline", failing)
    scheduler.run_due()
    assert http.get(f"/schedules/{second}").json()["last_pipeline"]
    told = http.get(f"/schedules/{first}").json()
    assert "s3://away" in told["last_problem"]
    assert datetime.fromisoformat(told["next_at"]) < datetime.now(UTC), "still due"
    let_its_moment_come(http, first, seconds=2 * 3600)
    scheduler._again.clear()
    scheduler.run_due()
    told = http.get(f"/schedules/{first}").json()
    assert datetime.fromisoformat(told["next_at"]) > datetime.now(UTC), "given up until the next time"
    let_its_moment_come(http, first)
    scheduler._again.clear()
    error = KeyError("unforeseen")
    scheduler.run_due()
    assert "unforeseen" in http.get(f"/schedules/{first}").json()["last_problem"]
    monkeypatch.undo()
    let_its_moment_come(http, first)
    scheduler.run_due()
    assert http.get(f"/schedules/{first}").json()["last_problem"] is None


def test_an_hour_that_clocks_have_twice_brings_no_moment_twice():
    times = CronSchedule(cron="30 2 * * *", timezone="Europe/Berlin")
    moment = datetime(2026, 10, 25, 1, 5, tzinfo=UTC)
    for _ in range(200):
        following = times.next_after(moment)
        assert following > moment
        moment = following if following - moment < timedelta(hours=2) else moment + timedelta(minutes=10)


def test_a_schedule_has_the_rights_of_its_key_as_long_as_that_is_valid(http, scheduler):
    store = http.app.state.store
    made = {name: store.keys.create(name, ["submit"]) for name in ("alice", "bob")}
    keys = {name: {"Authorization": f"Bearer {secret}"} for name, (_, secret) in made.items()}
    body = {"stages": STAGES, "schedule": "0 3 * * *"}
    schedule = http.post("/pipelines", json=body, headers=keys["alice"]).json()["id"]
    for method, tail in (("GET", ""), ("POST", "/run"), ("DELETE", "")):
        answer = http.request(method, f"/schedules/{schedule}{tail}", headers=keys["bob"])
        assert answer.status_code == 404, (method, tail)
    assert http.get("/schedules", headers=keys["bob"]).json()["items"] == []
    let_its_moment_come(http, schedule)
    scheduler.run_due()
    pipeline = store.pipelines.get(store.schedules.get(schedule).last_pipeline)
    assert pipeline.owner == made["alice"][0].id
    store.keys.revoke(made["alice"][0].id)
    let_its_moment_come(http, schedule)
    scheduler.run_due()
    assert "was revoked" in store.schedules.get(schedule).last_problem


def test_what_a_schedule_names_by_its_id_is_not_deleted(http):
    [uploaded] = http.get("/datasets").json()["items"]
    stages = {"only": {**STAGES["first"], "corpus": f"dataset:{uploaded['id']}"}}
    schedule = add(http, stages=stages).json()["id"]
    refused = http.delete(f"/artifacts/{uploaded['id']}")
    assert (refused.status_code, schedule in refused.text) == (409, True)
    http.delete(f"/schedules/{schedule}")
    assert http.delete(f"/artifacts/{uploaded['id']}").status_code == 204


# -- promotion -----------------------------------------------------------------------------------------------


def chosen(http, *, promoted: bool | None, name="search", sha256=None, baseline="o/base") -> dict:
    """An evaluate job that has ended with a model that is promoted, or is not."""
    spec = {
        "kind": "evaluate",
        "models": ["o/trained", baseline],
        "datasets": ["beir:scifact"],
        "publish_best": True,
        "name": name,
        **({"promote": "if_better"} if promoted is not None else {}),
    }
    job = http.post("/jobs", json=spec).json()
    store = http.app.state.store
    claim = store.leases.claim(CPU, 60)
    assert claim.job_id == job["id"]
    metadata = {} if promoted is None else {"promoted": promoted}
    sha256 = sha256 or hashlib.sha256(job["id"].encode()).hexdigest()
    output = NewArtifact("model", "model", f"file:///{job['id']}", sha256, 1, {"metadata": metadata})
    store.leases.finish(claim, EndReason.SUCCEEDED, outputs=[held_by(store, output)])
    made = http.get(f"/jobs/{job['id']}").json()["outputs"]["model"].partition(":")[2]
    return http.get(f"/artifacts/{made}").json()


def test_only_what_is_promoted_becomes_a_version_and_the_current_one(http):
    assert http.get("/models/search@current").status_code == 404
    first = chosen(http, promoted=True)
    assert (first["name"], first["version"], first["current"]) == ("search", 1, True)
    other = chosen(http, promoted=False)
    assert (other["name"], other["version"], other["current"]) == (None, None, False)
    assert http.get("/models/search@current").json()["id"] == first["id"]
    assert http.get("/models/search").json()["id"] == first["id"]
    second = chosen(http, promoted=True)
    assert second["version"] == 2
    assert http.get("/models/search@current").json()["id"] == second["id"]
    assert [row["current"] for row in http.get("/models").json()["items"]] == [True, False, False]
    usual = chosen(http, promoted=None)
    assert (usual["version"], usual["current"]) == (3, False), "without promote a version as always"
    assert http.get("/models/search@current").json()["id"] == second["id"]

    back = http.put(f"/artifacts/{first['id']}/current")
    assert (back.status_code, back.json()["current"]) == (200, True)
    job = http.post("/jobs", json={"kind": "embed", "model": "model:search@current", "texts": ["a"]}).json()
    assert job["inputs"]["model:search@current"]["artifact"] == first["id"]
    assert http.put(f"/artifacts/{other['id']}/current").status_code == 409
    http.post(f"/jobs/{job['id']}/cancel")
    refused = http.delete(f"/artifacts/{first['id']}")
    assert (refused.status_code, "search@current" in refused.json()["detail"]) == (409, True)
    assert http.delete(f"/artifacts/{first['id']}/current").status_code == 204
    assert http.get("/models/search@current").status_code == 404
    assert http.delete(f"/artifacts/{first['id']}").status_code == 204


def test_the_same_content_is_no_new_version_and_undoes_nothing(http):
    first, second = chosen(http, promoted=True, sha256="1" * 64), chosen(http, promoted=True)
    http.put(f"/artifacts/{first['id']}/current")
    again = chosen(http, promoted=True, sha256=second["sha256"])
    assert (again["name"], again["current"]) == (None, False)
    assert http.get("/models/search@current").json()["id"] == first["id"]
    assert http.get("/models/search").json()["id"] == second["id"]


def test_what_was_compared_with_another_version_does_not_replace_it(http):
    """Two runs are compared with the same version: the second that ends has not been compared with the
    first."""
    first = chosen(http, promoted=True)
    store = http.app.state.store
    spec = {
        "kind": "evaluate",
        "models": ["o/trained", "model:search@current"],
        "datasets": ["beir:scifact"],
        "publish_best": True,
        "name": "search",
        "promote": "if_better",
    }
    late = http.post("/jobs", json=spec).json()
    claim = store.leases.claim(CPU, 60)
    assert claim.job_id == late["id"]
    second = chosen(http, promoted=True, baseline="model:search@current")
    assert http.get("/models/search@current").json()["id"] == second["id"]
    output = NewArtifact("model", "model", "file:///late", "2" * 64, 1, {"metadata": {"promoted": True}})
    store.leases.finish(claim, EndReason.SUCCEEDED, outputs=[held_by(store, output)])
    assert http.get("/models/search").json()["version"] == 3, "it is a version"
    assert http.get("/models/search@current").json()["id"] == second["id"]
    assert first["id"] != second["id"]


def test_versions_that_were_deleted_are_not_numbered_again(http):
    chosen(http, promoted=True)
    second = chosen(http, promoted=None)
    assert http.delete(f"/artifacts/{second['id']}").status_code == 204
    assert http.get("/models/search@2").status_code == 404
    assert chosen(http, promoted=None)["version"] == 3


def test_promotion_of_a_pipeline_reaches_its_comparison(http):
    compare = {
        "kind": "evaluate",
        "models": ["o/trained", "o/base"],
        "datasets": ["beir:scifact"],
        "publish_best": True,
        "name": "search",
    }
    body = {"stages": {"compare": compare}, "promote": "if_not_worse"}
    made = http.post("/pipelines", json=body).json()
    assert http.get(f"/jobs/{made['stages']['compare']['job']}").json()["spec"]["promote"] == "if_not_worse"
    for stages, says in (
        ({"compare": {**compare, "publish_best": False}}, "there are 0"),
        ({"one": compare, "two": compare}, "there are 2"),
    ):
        answer = http.post("/pipelines", json={"stages": stages, "promote": "if_better"})
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["path"] == "promote"
        assert says in answer.text
    nameless = {name: value for name, value in compare.items() if name != "name"}
    answer = http.post("/pipelines", json={"stages": {"only": nameless}, "promote": "if_better"})
    assert (answer.status_code, "promote needs a name" in answer.text) == (422, True)


def test_a_recipe_compares_with_the_current_version(http):
    inputs = {"data": "dataset:pairs", "base_model": "o/m", "name": "search", "promote": "if_better"}
    found = http.post("/recipes/pairs/expand", json={"inputs": inputs}).json()
    compare = found["stages"]["compare"]
    assert [model["ref"] for model in compare["models"]] == ["stage:train/model", "o/m"]
    assert (compare["promote"], compare["name"]) == ("if_better", "search")
    chosen(http, promoted=True)
    found = http.post("/recipes/pairs/expand", json={"inputs": inputs}).json()
    models = found["stages"]["compare"]["models"]
    assert [model["ref"] for model in models] == ["stage:train/model", "model:search@current"]
    assert any(choice["value"] == ["trained", "current"] for choice in found["choices"])
    unnamed = {name: value for name, value in inputs.items() if name != "name"}
    answer = http.post("/recipes/pairs/expand", json={"inputs": unnamed})
    assert (answer.status_code, "promote needs a name" in answer.text) == (422, True)
    body = {"recipe": "pairs", "inputs": {**inputs, "promote": None}, "promote": "if_better"}
    made = http.post("/pipelines", json=body).json()
    spec = http.get(f"/jobs/{made['stages']['compare']['job']}").json()["spec"]
    assert (spec["promote"], spec["models"][-1]["name"]) == ("if_better", "current")
    while http.app.state.store.leases.claimable(CPU):
        run_next(http, EndReason.BAD_DATA)
