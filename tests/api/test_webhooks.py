"""Webhooks over HTTP: what is accepted, who sees them, and what becomes of them."""

import pytest


def create(http, url="https://example.org/hook", **more):
    return http.post("/webhooks", json={"url": url, **more})


def test_a_webhook_from_its_creation_to_its_end(http):
    made = create(http, events=["job.failed"])
    assert made.status_code == 201, made.text
    made = made.json()
    assert made["secret"].startswith("whsec_")
    [listed] = http.get("/webhooks").json()["items"]
    assert listed == {name: value for name, value in made.items() if name != "secret"}
    assert http.get(made["links"]["self"]).json() == listed
    job = http.post("/jobs", json={"kind": "train", "base_model": "o/m", "dataset": "hf:o/d"}).json()
    http.post(f"/jobs/{job['id']}/cancel")
    assert http.get(made["links"]["deliveries"]).json()["items"] == []
    other = create(http, events=["job.cancelled"]).json()
    job = http.post("/jobs", json={"kind": "train", "base_model": "o/m", "dataset": "hf:o/d"}).json()
    http.post(f"/jobs/{job['id']}/cancel")
    [delivery] = http.get(other["links"]["deliveries"]).json()["items"]
    assert (delivery["type"], delivery["subject"], delivery["state"]) == (
        "job.cancelled",
        job["id"],
        "waiting",
    )
    assert delivery["next_attempt_at"]
    assert http.delete(other["links"]["self"]).status_code == 204
    assert http.delete(other["links"]["self"]).status_code == 404
    assert http.get(other["links"]["deliveries"]).status_code == 404


def test_a_secret_of_the_users_own(http):
    secret = "whsec_" + "QUFB" * 10
    assert create(http, secret=secret).json()["secret"] == secret


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"url": "ftp://example.org"}, "url"),
        ({"url": "https://user:word@example.org"}, "url"),
        ({"url": "https://example.org:99999"}, "url"),
        ({"url": "http://127.0.0.1:8000/x"}, "url"),
        ({"url": "http://[::1]/x"}, "url"),
        ({"url": "http://169.254.169.254/latest"}, "url"),
        ({"url": "http://localhost/x"}, "url"),
        ({"url": "https://ex\u00e4mple.org/x"}, "url"),
        ({"url": "https://example.org/a b"}, "url"),
        ({"url": "https://example.org", "events": []}, "events"),
        ({"url": "https://example.org", "events": ["job.exploded"]}, "events.0"),
        ({"url": "https://example.org", "secret": "short"}, "secret"),
        ({"url": "https://example.org", "secret": "whsec_AAAA"}, "secret"),
        ({"url": "https://example.org", "secret": "whsec_???"}, "secret"),
        ({}, "url"),
    ],
)
def test_what_is_refused(http, body, path):
    answer = http.post("/webhooks", json=body)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["path"] == path


def test_private_addresses_can_be_allowed(settings):
    from fastapi.testclient import TestClient

    from api.app import create_app
    from migrations import upgrade

    upgrade(settings.database_url)
    app = create_app(settings.model_copy(update={"webhook_private_addresses": True}))
    with TestClient(app) as client:
        assert create(client, "http://127.0.0.1:9/x").status_code == 201


def test_everybody_has_their_own(http):
    store = http.app.state.store
    keys = {
        name: {"Authorization": f"Bearer {store.keys.create(name, scopes)[1]}"}
        for name, scopes in {"a": ["submit"], "b": ["submit"], "boss": ["admin"], "viewer": ["read"]}.items()
    }
    body = {"url": "https://example.org/hook"}
    assert http.post("/webhooks", json=body, headers=keys["viewer"]).status_code == 403
    made = http.post("/webhooks", json=body, headers=keys["a"]).json()
    seen = {name: len(http.get("/webhooks", headers=key).json()["items"]) for name, key in keys.items()}
    assert seen == {"a": 1, "b": 0, "boss": 1, "viewer": 0}
    for path in (made["links"]["self"], made["links"]["deliveries"]):
        answers = {name: http.get(path, headers=key).status_code for name, key in keys.items()}
        assert answers == {"a": 200, "b": 404, "boss": 200, "viewer": 404}
    assert http.delete(made["links"]["self"], headers=keys["b"]).status_code == 404
    assert http.delete(made["links"]["self"], headers=keys["boss"]).status_code == 204


def test_there_are_not_too_many(http, monkeypatch):
    monkeypatch.setattr("core.store.webhooks._MOST_HOOKS", 1)
    assert create(http).status_code == 201
    refused = create(http)
    assert refused.status_code == 409
    assert "delete one first" in refused.json()["detail"]
