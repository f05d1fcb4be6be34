"""Keys: checked before anything else is read, throttled when wrong, at once without effect when revoked."""

import asyncio
import threading
from inspect import Parameter, Signature
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends
from fastapi.testclient import TestClient

from api import stream
from api.app import create_app
from api.deps import Key
from api.routing import Route
from api.throttle import Throttle
from migrations import upgrade
from tests.specs import MINIMAL


class Clock:
    """A clock that a test sets."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def filled(path: str) -> str:
    """A path template with ids of nothing."""
    ids = {"job_id": "job_1", "artifact_id": "art_1", "key_id": "key_1", "dataset": "x", "path": "a"}
    return path.format_map(ids)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
def admin(http) -> dict[str, str]:
    return bearer(http.app.state.store.keys.create("admin", ["admin"])[1])


# -- before the body ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/jobs"),
        ("POST", "/jobs?nonsense=1"),
        ("POST", "/jobs/estimate"),
        ("POST", "/keys"),
        ("POST", "/datasets"),
        ("POST", "/datasets?name=../x"),
        ("GET", "/jobs?limit=nonsense"),
        ("GET", "/jobs?pipeline=x"),
        ("GET", "/jobs/no%00id"),
        ("GET", "/jobs/job_1/stream"),
        ("DELETE", "/keys/nonsense"),
        ("GET", "/metrics"),
    ],
)
def test_without_a_key_nothing_else_is_looked_at(http, admin, method, path):
    answer = http.request(method, path, content=b"{not json", headers={"content-type": "application/json"})
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert answer.json()["errors"] == []


@pytest.mark.parametrize(("path", "scopes", "status"), [("/jobs", [], 401), ("/jobs", ["read"], 403)])
@pytest.mark.parametrize("content_type", ["application/json", "text/plain"])
def test_the_body_is_not_read_before_the_key_is_checked(http, admin, path, scopes, status, content_type):
    headers = bearer(http.app.state.store.keys.create("other", scopes)[1]) if scopes else {}
    read: list[str] = []

    async def receive():
        read.append("body")
        return {"type": "http.request", "body": b"{", "more_body": False}

    sent: list[dict] = []

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "scheme": "http",
        "http_version": "1.1",
        "server": ("testserver", 80),
        "client": ("testclient", 1),
        "headers": [
            (name.lower().encode(), value.encode())
            for name, value in {**headers, "Host": "testserver", "Content-Type": content_type}.items()
        ],
    }
    asyncio.run(http.app(scope, receive, send))
    assert sent[0]["status"] == status
    assert read == []


def test_every_call_of_the_schema_but_health_needs_a_key(http, admin):
    open_calls = []
    for path, operations in http.app.openapi()["paths"].items():
        for method in operations:
            url = (
                path.replace("{job_id}", "job_1").replace("{artifact_id}", "art_1").replace("{dataset}", "x")
            )
            if (
                http.request(method, url.replace("{path}", "a").replace("{key_id}", "key_1")).status_code
                != 401
            ):
                open_calls.append(path)
    assert open_calls == ["/healthz", "/readyz"]


def test_what_is_no_key_is_unauthorized(on_both):
    on_both.app.state.store.keys.create("admin", ["admin"])
    sent = [
        "Bearer",
        "Bearer ",
        "Basic x",
        "Bearer key_1",
        "Bearer key_1.\xe9",
        "Bearer " + "x" * 5000,
        "Bearer a b",
    ]
    answers = {text: on_both.get("/jobs", headers={"Authorization": text.encode("latin-1")}) for text in sent}
    assert {text: answer.status_code for text, answer in answers.items()} == dict.fromkeys(sent, 401)


@pytest.mark.parametrize("order", [("read", "submit"), ("submit", "read"), ("admin", "read", "submit")])
def test_a_route_needs_the_strongest_of_its_scopes(settings, order):
    """A route may look something up by one dependency, and change it by another."""
    upgrade(settings.database_url)
    app = create_app(settings)
    router = APIRouter(route_class=Route)

    def route(**_principals: Any) -> dict[str, str]:
        return {}

    parameters = [
        Parameter(scope, Parameter.KEYWORD_ONLY, annotation=Annotated[Any, Depends(Key(scope))])
        for scope in order
    ]
    route.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    router.add_api_route("/both", route)
    app.include_router(router)
    secrets = {scope: app.state.store.keys.create(scope, [scope])[1] for scope in ("read", "submit", "admin")}
    with TestClient(app) as http:
        statuses = {
            scope: http.get("/both", headers=bearer(key)).status_code for scope, key in secrets.items()
        }
    allowed = {"admin", *(["submit"] if "admin" not in order else [])}
    assert statuses == {scope: 200 if scope in allowed else 403 for scope in secrets}


# -- wrong keys ---------------------------------------------------------------------------------------


@pytest.fixture
def throttled(settings):
    """(client, its clock): three wrong keys at once, then one a second."""
    upgrade(settings.database_url)
    clock = Clock()
    app = create_app(settings, throttle=Throttle(burst=3, per_second=1, clock=clock))
    with TestClient(app) as http:
        yield http, clock


def test_wrong_keys_are_slowed_down(throttled):
    http, clock = throttled
    key = http.app.state.store.keys.create("admin", ["admin"])[1]
    wrong = [key[:-1] + "!", "key_1.unknown", "no key at all"]
    assert [http.get("/jobs", headers=bearer(guess)).status_code for guess in wrong] == [401] * 3
    refused = http.get("/jobs", headers=bearer("key_1.unknown"))
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert refused.json()["code"] == "too_many_requests"
    # A right key looks like a wrong one: nothing can be tried behind the throttle.
    assert http.get("/jobs", headers=bearer(key)).json() == refused.json()
    clock.now += 1
    assert http.get("/jobs", headers=bearer(key)).status_code == 200
    assert http.get("/jobs", headers=bearer("key_1.unknown")).status_code == 401
    assert http.get("/jobs", headers=bearer("key_1.unknown")).status_code == 429


def test_a_refused_call_makes_nobody_wait_longer(throttled):
    http, clock = throttled
    http.app.state.store.keys.create("admin", ["admin"])
    answers = [http.get("/jobs", headers=bearer("wrong")).status_code for _ in range(60)]
    assert (answers.count(401), answers.count(429)) == (3, 57)
    clock.now += 1
    assert http.get("/jobs", headers=bearer("wrong")).status_code == 401


def test_right_keys_and_missing_ones_do_not_count(throttled):
    http, _ = throttled
    key = http.app.state.store.keys.create("admin", ["admin"])[1]
    assert {http.get("/jobs", headers=bearer(key)).status_code for _ in range(20)} == {200}
    assert {http.get("/jobs").status_code for _ in range(20)} == {401}
    assert http.get("/jobs", headers=bearer(key)).status_code == 200


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        ("203.0.113.7", "203.0.113.8", False),
        ("2001:db8::1", "2001:db8::2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:203.0.113.7", "203.0.113.7", True),
        ("", "testclient", False),
    ],
)
def test_addresses_are_told_apart(first: str, second: str, together: bool):
    throttle = Throttle(burst=1, clock=Clock())
    throttle.failed(first)
    assert throttle.wait_seconds(first) == 1
    assert throttle.wait_seconds(second) == (1 if together else 0)


def test_the_throttle_s_memory_is_bounded():
    throttle = Throttle(burst=1, most_addresses=100, clock=Clock())
    for number in range(1000):
        throttle.failed(f"10.0.{number // 256}.{number % 256}")
    waiting = [
        number for number in range(1000) if throttle.wait_seconds(f"10.0.{number // 256}.{number % 256}")
    ]
    assert waiting == list(range(900, 1000))


# -- revoked keys -------------------------------------------------------------------------------------


@pytest.fixture
def following(http, monkeypatch):
    """Opens a job's stream in a thread. Returns a function that waits for its end, and gives its events."""
    monkeypatch.setattr(stream, "_KEY_SECONDS", 0.0)
    monkeypatch.setattr(stream, "_SECONDS", 0.01)
    begun, look = threading.Event(), stream.Followed.look

    def looking(*arguments):
        begun.set()
        return look(*arguments)

    monkeypatch.setattr(stream.Followed, "look", looking)

    def follow(job: str, headers: dict[str, str]):
        ended: list[tuple[int, str]] = []

        def read() -> None:
            answer = http.get(f"/jobs/{job}/stream", headers=headers)
            ended.append((answer.status_code, answer.text))

        thread = threading.Thread(target=read)
        thread.start()
        begun.wait()

        def wait() -> tuple[int, str]:
            thread.join()
            return ended[0]

        return wait

    return follow


def submitted(http, headers) -> str:
    answer = http.post("/jobs", json={**MINIMAL["embed"]}, headers=headers)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


@pytest.mark.parametrize("others", [True, False], ids=["other keys stay", "it was the last key"])
def test_a_revoked_key_s_stream_ends(http, following, others):
    keys = http.app.state.store.keys
    if others:
        keys.create("other", ["admin"])
    row, secret = keys.create("one", ["submit"])
    job = submitted(http, bearer(secret))
    wait = following(job, bearer(secret))
    keys.revoke(row.id)
    status, text = wait()
    assert status == 200
    assert '"queued"' in text
    assert http.app.state.store.jobs.get(job).state == "queued"


def test_a_stream_without_a_key_ends_when_there_are_keys(http, following):
    job = submitted(http, {})
    wait = following(job, {})
    http.app.state.store.keys.create("first", ["admin"])
    assert wait()[0] == 200


def test_a_stream_of_a_key_that_stays_goes_on_to_the_job_s_end(http, following):
    keys = http.app.state.store.keys
    _, secret = keys.create("one", ["submit"])
    other, _ = keys.create("other", ["submit"])
    job = submitted(http, bearer(secret))
    wait = following(job, bearer(secret))
    keys.revoke(other.id)
    http.post(f"/jobs/{job}/cancel", headers=bearer(secret))
    status, text = wait()
    assert status == 200
    assert '"cancelled"' in text
