"""The Python client's requests."""

import json

import httpx

from client.client import Client

_AT = "2026-01-01T00:00:00Z"
_EVENTS = [
    {"seq": 1, "attempt": 1, "at": _AT, "type": "phase", "data": {"phase": "loading"}},
    {"seq": 2, "attempt": 1, "at": _AT, "type": "of_a_newer_server", "data": {"what": "ever"}},
    {"seq": 3, "attempt": 1, "at": _AT, "type": "notice", "data": {"message": "read"}},
]


def _answer(request: httpx.Request) -> httpx.Response:
    if request.url.path.endswith("/stream"):
        return httpx.Response(200, text="".join(f"data: {json.dumps(event)}\n\n" for event in _EVENTS))
    after = int(request.url.params["cursor"])
    return httpx.Response(200, json={"items": [event for event in _EVENTS if event["seq"] > after]})


def test_events_of_types_that_a_newer_server_sends_are_skipped():
    client = Client("http://service", retries=1)
    client._connection.http = httpx.Client(base_url="http://service", transport=httpx.MockTransport(_answer))
    assert [event.seq for event in client.events("job_1")] == [1, 3]
    assert [event.seq for event in client.stream("job_1")] == [1, 3]
