"""What is refused before a route runs: texts without form, unknown parameters, bodies that are no JSON."""

import json
from typing import Any
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient

from tests.specs import MINIMAL

BAD = {
    "NUL": "\x00",
    "inside": "a\x00b",
    "bytes": b"\xff\xfe",
    "quote": "'\"",
    "long": "x" * 5000,
    "lines": "a\n",
}


def encoded(text: str | bytes) -> str:
    return quote(text, safe="")


def calls(schema: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """(method, path, one text parameter) of every call."""
    return [
        (method, path, parameter)
        for path, operations in schema["paths"].items()
        for method, operation in operations.items()
        for parameter in operation.get("parameters", ())
        if "integer" not in json.dumps(parameter["schema"])
        and "number" not in json.dumps(parameter["schema"])
    ]


def test_no_text_in_a_path_or_a_query_is_an_error_of_the_server(on_both):
    """Both databases give the same answers, since neither is asked."""
    answers = {}
    for method, path, parameter in calls(on_both.app.openapi()):
        for name, text in BAD.items():
            url, headers, query = path, {}, ""
            if parameter["in"] == "path":
                url = path.replace(f"{{{parameter['name']}}}", encoded(text))
            elif parameter["in"] == "query":
                query = f"?{parameter['name']}={encoded(text)}"
            elif isinstance(text, str) and name in ("quote", "long"):  # others never get through a server
                headers = {parameter["name"]: text}
            url = url.replace("{job_id}", "job_1").replace("{artifact_id}", "art_1").replace("{dataset}", "x")
            body = {"json": {"priority": 1}} if method == "patch" or path.endswith("/expand") else {}
            answer = on_both.request(method, f"{url.replace('{path}', 'a')}{query}", headers=headers, **body)
            answers[method, path, parameter["name"], name] = answer.status_code
    assert {call: status for call, status in answers.items() if status >= 500} == {}
    assert {status for (_, path, name, _), status in answers.items() if f"{{{name}}}" in path} == {404}


@pytest.mark.parametrize(
    "path",
    [
        "/jobs/nothing",
        "/jobs/job_%00",
        "/jobs/job_1%0A",
        "/jobs/JOB_1/events",
        "/jobs/art_1/stream",
        "/artifacts/job_1",
        "/datasets/%00/preview",
        "/datasets/a@b",
        "/datasets/a@1%0A",
        "/keys/1",
    ],
)
def test_a_path_with_no_id_in_it_is_not_found(http, monkeypatch, path):
    """Without a look into the database."""
    method = "DELETE" if path.startswith("/keys") else "GET"
    monkeypatch.setattr(http.app.state.store.database, "_readers", None)
    monkeypatch.setattr(http.app.state.store.keys, "any_active", lambda: False)
    answer = http.request(method, path)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


SPECS: list[tuple[dict[str, Any], str]] = [
    ({"depends_on": ["a\x00"]}, "depends_on.0"),
    ({"depends_on": ["job_1\n"]}, "depends_on.0"),
    ({"dataset": "dataset:a\x00"}, "dataset.ref"),
    ({"dataset": "dataset:a@1\x00"}, "dataset.ref"),
    ({"base_model": "model:\ud800"}, "base_model"),
    ({"base_model": "job:job_1\x00/model"}, "base_model"),
    ({"prompts": {"query": "\x00"}}, "prompts.query"),
    ({"labels": {"a\n": "x"}}, "labels.a\n"),
    ({"labels": {"a": "\udfff"}}, "labels.a"),
    ({"name": "a\n"}, "name"),
    ({"timeout_seconds": 1e300}, "timeout_seconds"),
]


def post(http: TestClient, url: str, body: Any):
    """With escapes, as `json.dumps` writes them: httpx would refuse to send an unpaired surrogate."""
    return http.post(url, content=json.dumps(body), headers={"content-type": "application/json"})


@pytest.mark.parametrize("url", ["/jobs", "/jobs/estimate"])
def test_specs_that_no_database_could_store(on_both, url):
    for change, path in SPECS:
        answer = post(on_both, url, {**MINIMAL["train"], **change})
        assert (answer.status_code, [error["path"] for error in answer.json()["errors"]]) == (422, [path])
    assert on_both.get("/jobs").json()["items"] == []


def test_names_of_keys_that_no_database_could_store(on_both):
    bad = [{"name": "a\x00"}, {"name": "\ud800"}, {"name": ""}, {"name": "a", "scopes": ["x\x00"]}]
    assert [post(on_both, "/keys", key).status_code for key in bad] == [422] * len(bad)
    assert on_both.get("/keys").json()["items"] == []


def test_labels_that_are_none(on_both):
    bad = ["a:\x00", "a\n:x", "a\x00:x", ":x", "a", "a" * 64 + ":x", "a:" + "x" * 201]
    answers = {label: on_both.get("/jobs", params={"label": label}).status_code for label in bad}
    assert answers == dict.fromkeys(bad, 400)


@pytest.mark.parametrize(
    ("path", "name", "hint"),
    [
        ("/jobs?owner=x", "owner", "known: cursor, kind, label, limit, pipeline, search, state"),
        ("/jobs?lable=a:b", "lable", "did you mean label"),
        ("/jobs?limit=5&State=queued", "State", "did you mean state"),
        ("/models?limits=5", "limits", "did you mean limit"),
        ("/datasets?kind=x", "kind", "known: cursor, limit"),
        ("/queue?x=", "x", "has none"),
        ("/healthz?x=1", "x", "has none"),
        ("/jobs/job_1?full=1", "full", "has none"),
        ("/jobs/job_1/events?after=3", "after", "known: cursor, limit"),
        ("/jobs/job_1/logs?tial=3", "tial", "did you mean tail"),
    ],
)
def test_an_unknown_query_parameter_is_named_with_the_nearest_one(http, path, name, hint):
    answer = http.get(path)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")
    [error] = answer.json()["errors"]
    assert (error["path"], hint in error["message"]) == (name, True), error


def test_an_unknown_query_parameter_of_a_call_that_writes(http):
    answer = http.post("/datasets?name=x&max_reject_shar=1", content=b'{"query": "a", "positive": "b"}\n')
    assert (answer.status_code, answer.json()["errors"][0]["path"]) == (400, "max_reject_shar")
    assert http.post("/jobs?dry_run=true", json=MINIMAL["train"]).status_code == 400
    assert http.get("/datasets").json()["items"] == http.get("/jobs").json()["items"] == []


JSON = "application/json"


@pytest.mark.parametrize(
    ("body", "content_type", "path", "words"),
    [
        (b'{"kind": "train"', JSON, "body", "line 1, column 17"),
        (b"{\n x}", JSON, "body", "line 2, column 2"),
        (b"", JSON, "body", "is empty"),
        (b'{"kind": "embed", "seed": NaN}', JSON, "body", "NaN is not a JSON number"),
        (b"\x80", JSON, "body", "UTF-8"),
        (b"[" * 100_000, JSON, "body", "nested too deeply"),
        (b"9" * 5000, JSON, "body", "not JSON"),
        (b'{"kind": "train", "kind": "embed"}', JSON, "kind", "is given more than once"),
        (b'{"loss": {"name": "a", "name": "b"}}', JSON, "name", "is given more than once"),
        (b"{}", "application/x-www-form-urlencoded", "Content-Type", "x-www-form-urlencoded"),
        (b"{}", "text/plain", "Content-Type", "send `Content-Type: application/json`"),
        (b"{}", None, "Content-Type", "is missing"),
        (b"[]", JSON, "kind", "must be one of"),
        (b'{"kind": "\\ud800"}', JSON, "kind", "must be one of"),
        (b'{"kind": "embed", "\\ud800": 1}', JSON, "body", "valid Unicode"),
    ],
)
def test_a_body_that_is_not_understood_is_told_why(http, body, content_type, path, words):
    answer = http.post("/jobs", content=body, headers={"content-type": content_type} if content_type else {})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    [error] = answer.json()["errors"]
    assert error["path"] == path
    assert words in error["message"]


@pytest.mark.parametrize("content_type", [JSON, "application/json; charset=utf-8", "application/vnd.x+json"])
def test_json_has_several_names(http, content_type):
    body = json.dumps({"name": "a"})
    assert http.post("/keys", content=body, headers={"content-type": content_type}).status_code == 201


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/jobs", "GET, POST"),
        ("OPTIONS", "/datasets", "GET, POST"),
        ("GET", "/jobs/estimate", "POST"),
        ("PUT", "/jobs/job_1", "DELETE, GET, PATCH"),
        ("GET", "/jobs/job_1/cancel", "POST"),
        ("POST", "/artifacts/art_1/files/a/b", "GET, HEAD"),
    ],
)
def test_another_method_is_answered_with_those_that_there_are(http, method, path, allowed):
    answer = http.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    assert allowed in answer.json()["detail"]
