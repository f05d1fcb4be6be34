"""Searches to try models: what they find, who may, and a process that comes and goes."""

import pytest
from fastapi.testclient import TestClient

from api import searching
from api.app import create_app
from core.store.schema.access import Access
from migrations import upgrade
from tests.outputs import embedded

TEXTS = {"a": "river water", "b": "market bread", "c": "mountain snow"}


@pytest.fixture
def job(http, settings, tiny_model) -> str:
    return embedded(http.app.state.store, settings, tiny_model, TEXTS)


def search(http, reference: str, query: str = "market bread", **fields):
    return http.post("/search", json={"embeddings": reference, "query": query, **fields})


def test_a_search_finds_texts_best_first(http, job):
    answer = search(http, f"job:{job}/embeddings", k=2)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert len(found["hits"]) == 2
    assert found["hits"][0] == {"id": "b", "score": pytest.approx(1.0, abs=1e-4), "text": "market bread"}
    first = http.app.state.searcher._process.pid
    [artifact] = http.get(f"/jobs/{job}/artifacts").json()["items"]
    again = search(http, f"artifact:{artifact['id']}", "mountain snow")
    assert again.json()["hits"][0]["id"] == "c"
    assert http.app.state.searcher._process.pid == first


def test_a_process_that_was_killed_is_started_again(http, job):
    assert search(http, f"job:{job}/embeddings").status_code == 200
    http.app.state.searcher._process.kill()
    http.app.state.searcher._process.wait()
    assert search(http, f"job:{job}/embeddings").status_code == 200


def test_a_process_without_searches_ends(http, job, monkeypatch):
    monkeypatch.setattr(searching, "_IDLE_SECONDS", 0.2)
    assert search(http, f"job:{job}/embeddings").status_code == 200
    http.app.state.searcher._timer.join(30)
    assert http.app.state.searcher._process is None


def test_what_cannot_be_searched_is_said(http, job, settings, tiny_model, monkeypatch):
    assert search(http, "job:job_01k9zq5m2w8r4t6y0b3d5f7h9j/embeddings").status_code == 404
    for text in ("model:mine", "job:0/0", f"job:{job}/checkpoint@3", "artifact:x"):
        assert search(http, text).status_code in (404, 422), text
    moved = tiny_model.rename(tiny_model.with_name("moved"))
    answer = search(http, f"job:{job}/embeddings")
    moved.rename(tiny_model)
    assert answer.status_code == 422
    assert "no such folder" in answer.json()["detail"]
    monkeypatch.setattr(searching.importlib.util, "find_spec", lambda name: None)
    answer = search(http, f"job:{job}/embeddings")
    assert answer.status_code == 503
    assert "reason search" in answer.json()["detail"]


def test_more_searches_than_may_wait_are_refused(http, job):
    searcher = http.app.state.searcher
    for _ in range(searching._MOST_WAITING):
        searcher._waiting.acquire()
    answer = search(http, f"job:{job}/embeddings")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    for _ in range(searching._MOST_WAITING):
        searcher._waiting.release()
    assert search(http, f"job:{job}/embeddings").status_code == 200


def test_a_search_that_takes_too_long_ends(http, job, monkeypatch):
    monkeypatch.setattr(searching, "_SECONDS", 0.0)
    answer = search(http, f"job:{job}/embeddings")
    assert answer.status_code == 503
    assert "no answer" in answer.json()["detail"]
    assert http.app.state.searcher._process is None


def test_embeddings_of_others_are_not_there(settings, tiny_model):
    upgrade(settings.database_url)
    app = create_app(settings.model_copy(update={"private_jobs": True}))
    with TestClient(app) as http:
        store = app.state.store
        keys = [store.keys.create(name, ["read", "submit"]) for name in ("one", "other")]
        job = embedded(store, settings, tiny_model, TEXTS, Access(keys[0][0].id))
        asked = {"embeddings": f"job:{job}/embeddings", "query": "market bread"}
        statuses = [
            http.post("/search", json=asked, headers={"Authorization": f"Bearer {secret}"}).status_code
            for _, secret in keys
        ]
    assert statuses == [200, 404]
