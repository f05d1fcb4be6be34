"""The schema says what every call can answer, and /docs shows it with nothing from elsewhere."""

import re
import socket

import pytest

from api.errors import MEDIA_TYPE
from api.listener import open_listener
from tests.fuzz import fuzz, serving

METHODS = {"get", "post", "delete", "put", "patch", "head"}


@pytest.fixture
def operations(http) -> dict[str, dict]:
    paths = http.get("/openapi.json").json()["paths"]
    return {
        f"{method} {path}": operation
        for path, found in paths.items()
        for method, operation in found.items()
        if method in METHODS
    }


def test_every_call_declares_the_statuses_that_it_can_give(operations):
    missing = []
    for name, operation in operations.items():
        expected = {"400", "500"}
        if operation.get("security"):
            expected |= {"401", "403", "429", "503"}
        if "{" in name:
            expected.add("404")
        if "requestBody" in operation:
            expected |= {"413", "422"}
        if any(found["in"] == "query" for found in operation.get("parameters", ())):
            expected.add("422")
        missing += [(name, status) for status in expected - set(operation["responses"])]
    assert missing == []
    assert [name for name, operation in operations.items() if not operation.get("security")] == [
        "get /healthz",
        "get /readyz",
    ]


@pytest.mark.parametrize(
    ("call", "statuses"),
    [
        ("post /jobs", {"200", "201", "403", "404", "409"}),
        ("post /jobs/estimate", {"200", "403", "404", "409"}),
        ("post /jobs/{job_id}/cancel", {"202", "403", "404", "409"}),
        ("post /jobs/{job_id}/retry", {"202", "403", "404", "409"}),
        ("post /datasets", {"200", "201", "400", "413", "422"}),
        ("post /models", {"200", "201", "400", "413", "422"}),
        ("get /artifacts/{artifact_id}/files/{path}", {"200", "206", "304", "404", "416"}),
        ("get /readyz", {"200", "503"}),
    ],
)
def test_calls_declare_what_is_their_own(operations, call, statuses):
    assert statuses <= set(operations[call]["responses"])


def test_errors_are_problems_and_nothing_else(operations, http):
    schemas = http.get("/openapi.json").json()["components"]["schemas"]
    assert set(schemas["Problem"]["required"]) == {"type", "title", "status", "detail", "code", "errors"}
    assert not {"HTTPValidationError", "ValidationError"} & set(schemas)
    for name, operation in operations.items():
        for status, response in operation["responses"].items():
            assert response["description"], (name, status)
            if status >= "400" and (name, status) != ("get /readyz", "503"):
                [(media_type, content)] = response["content"].items()
                assert media_type == MEDIA_TYPE
                assert content["schema"] == {"$ref": "#/components/schemas/Problem"}


def test_a_range_behind_the_end_is_a_problem_too(http, settings):
    made = http.post("/datasets?name=x", content=b'{"query": "a", "positive": "b"}\n').json()
    url = f"/artifacts/{made['id']}/files/data.jsonl"
    answer = http.get(url, headers={"Range": "bytes=100000-"})
    assert (answer.status_code, answer.headers["content-type"]) == (416, MEDIA_TYPE)
    assert answer.headers["content-range"] == "bytes */32"


# -- /docs --------------------------------------------------------------------------------------------


def test_the_page_loads_nothing_from_elsewhere(http):
    page = http.get("/docs")
    assert page.status_code == 200
    policy = dict(part.split(" ", 1) for part in page.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert "unsafe" not in page.headers["content-security-policy"]
    assert "//" not in page.text.removeprefix("<!doctype html>")
    scripts = re.findall(r"<script([^>]*)>(.*?)</script>", page.text, re.DOTALL)
    assert [inside for _, inside in scripts] == ["", ""]
    for address in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        found = http.get(f"/{address}")
        assert found.status_code == 200, address
        assert found.headers["x-content-type-options"] == "nosniff"
        assert len(found.content) > 100
    assert "validatorUrl: null" in http.get("/docs/start.js").text


@pytest.mark.parametrize(
    "path", ["/redoc", "/docs/oauth2-redirect", "/docs/redoc.standalone.js", "/docs/..%2fapp.py"]
)
def test_there_are_no_other_pages(http, path):
    assert http.get(path).status_code == 404


# -- the socket ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_answers_do_not_wait_for_acknowledgements(host):
    """asyncio sets TCP_NODELAY on what it accepts only where the listener names the protocol."""
    import asyncio

    async def option_of_an_accepted_connection() -> int:
        accepted: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = writer.get_extra_info("socket")
            accepted.set_result(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        try:
            listener = open_listener(host, 0)
        except OSError:
            pytest.skip(f"this machine has no {host}")
        assert (listener.proto, listener.type) == (socket.IPPROTO_TCP, socket.SOCK_STREAM)
        async with await asyncio.start_server(answer, sock=listener):
            _, writer = await asyncio.open_connection(*listener.getsockname()[:2])
            option = await accepted
            writer.close()
        return option

    assert asyncio.run(option_of_an_accepted_connection()) != 0


# -- all of it ----------------------------------------------------------------------------------------


def test_schemathesis_finds_nothing(settings, postgres_url, tmp_path):
    """A few requests of each call, always the same; `benchmarks/fuzz.py` sends thousands."""
    settings = settings.model_copy(update={"database_url": postgres_url})
    with serving(settings) as target:
        folder = tmp_path / "fuzz"
        found = fuzz(target, folder, examples=2, seed=20261125, phases="examples,fuzzing", known_ids=True)
    assert found.status == 0, found.output
    assert found.requests > 50
