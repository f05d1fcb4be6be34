"""Queries by a language model: what is paid for is stored, whatever the endpoint does."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from core.data.sources.inputs import make_context
from core.jobs.protocol import EndpointRules, RunRequest
from core.language_model.answers import Answer, Answers, answer_key
from core.process.attempt import run_attempt
from core.process.local import run_local
from core.runtime.context import StopSignal
from core.runtime.reporter import RecordingReporter
from core.spec import parse_spec
from tests.data.pages import SMALL, page
from tests.data.running import facts, rows
from tests.stub_llm import Reply, StubEndpoint, good_answer

RUN = """
import json, sys
from pathlib import Path
from core.process.local import run_local
from core.runtime.context import StopSignal
from core.runtime.reporter import RecordingReporter
spec, out, cache = map(Path, sys.argv[1:])
run_local(json.loads(spec.read_text()), out, RecordingReporter(), cache=cache)
"""
TOPICS = ("river", "market", "engine", "garden")


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "docs"
    root.mkdir()
    for topic in TOPICS:
        for number in range(3):
            (root / f"{topic}{number}.md").write_text(page(topic, number), encoding="utf-8")
    return root


def spec_of(tree: Path, stub: StubEndpoint, **llm) -> dict:
    settings = {"endpoint": stub.url, "model": "stub", "per_passage": 2, "concurrency": 4, **llm}
    return {
        "kind": "prepare",
        "source": f"file:{tree}",
        "chunking": SMALL,
        "queries": {"of": ["llm"], "llm": settings},
        "balance": {"min_rows": 0},
        "negatives": {"per_query": 0},
    }


def made(tree: Path, out: Path, stub: StubEndpoint, cache: Path, **llm):
    reporter = RecordingReporter()
    result = run_local(spec_of(tree, stub, **llm), out, reporter, cache=cache)
    return result, reporter


def notices(reporter: RecordingReporter) -> str:
    return " ".join(event.data.message for event in reporter.events if event.type == "notice")


def test_every_passage_gets_the_queries_that_the_model_writes(tree, tmp_path):
    with StubEndpoint() as stub:
        result, _ = made(tree, tmp_path / "out", stub, tmp_path / "cache")
    assert result.state == "succeeded", result.end_reason
    page_ = facts(tmp_path / "out")
    said = page_["asking"]["language_model"]
    assert said["answered"] == said["passages"] == stub.calls == page_["passages"]["all"]
    found = rows(tmp_path / "out")
    assert len(found) == 2 * stub.calls == page_["asking"]["made"]["llm"]
    assert stub.most_at_once <= 4
    # The passage keeps all of its words: nothing of it was taken as a query.
    assert any("# The river number 0" in row["positive"] for row in found)
    assert len(page_["asking"]["shown"]) == 20


def test_a_second_run_pays_for_nothing(tree, tmp_path):
    with StubEndpoint() as stub:
        made(tree, tmp_path / "one", stub, tmp_path / "cache")
        calls = stub.calls
        result, _ = made(tree, tmp_path / "two", stub, tmp_path / "cache")
        assert (result.state, stub.calls) == ("succeeded", calls)
        assert rows(tmp_path / "one") == rows(tmp_path / "two")
        assert facts(tmp_path / "two")["asking"]["language_model"]["new_tokens"] == 0
        made(tree, tmp_path / "three", stub, tmp_path / "cache", model="another")
        assert stub.calls == 2 * calls


def test_an_endpoint_that_misbehaves_loses_nothing(tree, tmp_path):
    """429 with Retry-After, 500s, broken JSON, empty answers, silence, dropped connections."""

    def behave(number, request):
        return {
            0: Reply(429, {"error": {"message": "slow down"}}, {"Retry-After": "1"}),
            1: Reply(500, b"<html>oops</html>"),
            2: Reply(drop=True),
            3: Reply(seconds=3),
            4: Reply(200, b"{not json"),
            5: Reply(503, {"error": "busy"}, {"Retry-After": "0"}),
            6: "```json\n" + good_answer(request)[:-1] + ",]}\n```",
            7: "",
            15: "I would rather not.",
        }.get(number)

    with StubEndpoint(behave) as stub:
        result, reporter = made(tree, tmp_path / "out", stub, tmp_path / "cache", timeout_seconds=1)
    assert result.state == "succeeded", result.end_reason
    said = facts(tmp_path / "out")["asking"]["language_model"]
    assert said["answered"] == said["passages"]
    assert said["invalid"] == 2  # the empty one and the refusal, each asked for once more
    assert said["failed_tries"].keys() >= {"status 429", "status 500", "connection failed"}
    # Paid twice is only what was answered after the job had given up waiting.
    assert sum(stub.paid.values()) - len(stub.paid) <= 1
    assert "answers could not be used" in notices(reporter)


def test_a_dead_endpoint_ends_the_job_with_a_sentence(tree, tmp_path):
    with StubEndpoint(lambda *_: Reply(500, {"error": "down"})) as stub:
        result, _ = made(tree, tmp_path / "out", stub, tmp_path / "cache", max_retries=0)
    assert (result.state, result.end_reason.code) == ("failed", "endpoint_failed")
    assert "calls in a row failed" in result.end_reason.message
    assert "status 500: down" in result.end_reason.message


def test_an_address_where_nothing_listens_is_said_at_once(tree, tmp_path):
    with StubEndpoint(lambda *_: Reply(500, {})) as stub:
        pass  # its port is free again
    begun = time.monotonic()
    result, _ = made(tree, tmp_path / "out", stub, tmp_path / "cache", max_retries=100)
    assert result.end_reason.code == "endpoint_failed"
    assert "cannot be reached: connection failed" in result.end_reason.message
    assert time.monotonic() - begun < 60  # a hundred tries would take more than an hour


@pytest.mark.parametrize("status", [401, 404])
def test_a_refusal_ends_the_job_at_once(tree, tmp_path, status):
    with StubEndpoint(lambda *_: Reply(status, {"error": {"message": "no such model"}})) as stub:
        result, _ = made(tree, tmp_path / "out", stub, tmp_path / "cache")
    assert result.end_reason.code == "bad_spec"
    assert "no such model" in result.end_reason.message
    assert stub.calls <= 4


def test_the_budget_is_never_exceeded_and_a_larger_one_continues(tree, tmp_path):
    with StubEndpoint() as stub:
        budget = {"max_tokens_total": 4000, "max_tokens": 16}
        result, reporter = made(tree, tmp_path / "one", stub, tmp_path / "cache", **budget)
        assert result.state == "succeeded", result.end_reason
        said = facts(tmp_path / "one")["asking"]["language_model"]
        assert said["budget_reached"]
        assert 0 < said["tokens"] <= 4000
        assert 0 < said["answered"] < said["passages"]
        assert "The budget of 4,000 tokens" in notices(reporter)
        paid = stub.calls
        result, _ = made(tree, tmp_path / "two", stub, tmp_path / "cache", max_tokens=16)
        said = facts(tmp_path / "two")["asking"]["language_model"]
        assert said["answered"] == said["passages"] == stub.calls
        assert said["from_store"] == paid


def test_parameters_that_an_endpoint_does_not_know_are_left_out(tree, tmp_path):
    def behave(number, request):
        for name in ("response_format", "temperature"):
            if name in request:
                return Reply(400, {"error": {"message": f"Unsupported parameter: '{name}'"}})
        if "max_tokens" in request:
            message = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
            return Reply(400, {"error": {"message": message, "param": "max_tokens"}})
        return None

    with StubEndpoint(behave, seconds=0.05) as stub:
        result, reporter = made(tree, tmp_path / "out", stub, tmp_path / "cache", concurrency=8)
    assert result.state == "succeeded", result.end_reason
    said = facts(tmp_path / "out")["asking"]["language_model"]
    assert said["answered"] == said["passages"], "calls that were on their way are made again"
    assert stub.requests[-1]["max_completion_tokens"] == 400
    assert "does not accept temperature" in notices(reporter)


def test_a_killed_job_asks_for_nothing_twice(tree, tmp_path):
    def behave(number, request):
        return Reply(seconds=0.05)

    with StubEndpoint(behave) as stub:
        spec = tmp_path / "spec.json"
        spec.write_text(json.dumps(spec_of(tree, stub, concurrency=2)))
        command = [sys.executable, "-c", RUN, *map(str, (spec, tmp_path / "one", tmp_path / "cache"))]
        process = subprocess.Popen(command, start_new_session=True)
        deadline = time.monotonic() + 60
        while sum(stub.paid.values()) < 6 and time.monotonic() < deadline:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(0.2)
        paid = sum(stub.paid.values())
        assert paid >= 6
        result, _ = made(tree, tmp_path / "two", stub, tmp_path / "cache", concurrency=2)
        said = facts(tmp_path / "two")["asking"]["language_model"]
    assert result.state == "succeeded", result.end_reason
    # Only answers that were on their way at the kill may be missing: at most one for each connection.
    assert said["from_store"] >= paid - 2
    assert sum(stub.paid.values()) - len(stub.paid) <= 2


def test_the_key_comes_from_the_environment_and_is_written_nowhere(tree, tmp_path, monkeypatch):
    monkeypatch.setenv("STUB_KEY", "sk-very-secret")
    with StubEndpoint() as stub:
        result, reporter = made(tree, tmp_path / "out", stub, tmp_path / "cache", api_key_env="STUB_KEY")
    assert result.state == "succeeded", result.end_reason
    assert stub.keys == {"Bearer sk-very-secret"}
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or b"sk-very-secret" not in path.read_bytes(), path
    assert "sk-very-secret" not in str(reporter.events)
    monkeypatch.delenv("STUB_KEY")
    with StubEndpoint() as stub:
        result, _ = made(tree, tmp_path / "other", stub, tmp_path / "more", api_key_env="STUB_KEY")
    assert result.end_reason.code == "bad_spec"
    assert "STUB_KEY is not set" in result.end_reason.message


def test_stored_answers_survive_a_reopened_store(tmp_path):
    request = {"model": "m", "messages": [{"role": "user", "content": "x"}], "seed": 1}
    with Answers(tmp_path, "m") as answers:
        answers.keep(answer_key(request, 0), Answer("text", 3, 4))
    with Answers(tmp_path, "m") as answers:
        assert answers.find(answer_key(request, 0)) == Answer("text", 3, 4)
        assert answers.find(answer_key(request, 1)) is None
        assert answers.find(answer_key({**request, "seed": 2}, 0)) is None


def test_an_address_that_is_not_permitted_is_never_called(tree, tmp_path):
    """The rules of a job with a key: the host's name is resolved, and its address checked."""
    reporter = RecordingReporter()
    with StubEndpoint() as stub:
        spec = spec_of(tree, stub, endpoint=stub.url.replace("127.0.0.1", "localhost"))
        request = RunRequest(
            job_id="job_1",
            attempt=1,
            spec=parse_spec(spec).model_dump(mode="json"),
            checkpoints=tmp_path / "checkpoints",
            cache=tmp_path / "cache",
            endpoints=EndpointRules(private="none", any_key=False),
        )
        (tmp_path / "job").mkdir()
        result = run_attempt(make_context(request, tmp_path / "job", reporter))
        assert stub.calls == 0
    assert result.end_reason.code == "bad_spec"
    assert "localhost leads to a private address" in result.end_reason.message


@pytest.mark.parametrize(
    "answer",
    [
        '{"queries": ["half a pair \\ud800 of it", "what is whole?"]}',
        Reply(body={"choices": [{"message": {"content": '["\ud800 is half of a pair"]'}}]}),
        Reply(
            body={
                "choices": [{"message": {"content": '["what is it?"]'}}],
                "usage": {"prompt_tokens": 10**30, "completion_tokens": 1},
            }
        ),
        " " * 100_000,
        "\n" * 100_000,
        Reply(body=b"[" * 100_000),
        Reply(body={"choices": []}),
    ],
    ids=["half a pair", "half a pair in the text", "tokens", "spaces", "lines", "nested", "no choice"],
)
def test_odd_answers_crash_nothing(tree, tmp_path, answer):
    with StubEndpoint(lambda number, _: answer if number == 0 else None) as stub:
        result, _ = made(tree, tmp_path / "out", stub, tmp_path / "cache", concurrency=1, on_invalid="drop")
        again, _ = made(tree, tmp_path / "two", stub, tmp_path / "cache", concurrency=1, on_invalid="drop")
    assert (result.state, again.state) == ("succeeded", "succeeded"), result.end_reason
    assert facts(tmp_path / "two")["asking"]["language_model"]["without_answer"] == 0


def test_a_key_that_the_endpoint_repeats_is_not_told(tree, tmp_path, monkeypatch):
    monkeypatch.setenv("STUB_KEY", "sk-very-secret")
    with StubEndpoint(lambda *_: Reply(401, {"error": {"message": "bad key sk-very-secret"}})) as stub:
        result, reporter = made(tree, tmp_path / "out", stub, tmp_path / "cache", api_key_env="STUB_KEY")
    assert "bad key ***" in result.end_reason.message
    assert "sk-very-secret" not in str(result) + str(reporter.events)


def test_answers_that_are_on_their_way_are_kept_when_another_call_ends_the_job(tree, tmp_path):
    with StubEndpoint(lambda number, _: Reply(404) if number == 3 else None, seconds=0.5) as stub:
        result, _ = made(tree, tmp_path / "out", stub, tmp_path / "cache")
        assert result.end_reason.code == "bad_spec"
        assert sum(stub.paid.values()) >= 3
        made(tree, tmp_path / "two", stub, tmp_path / "cache")
        assert sum(stub.paid.values()) == len(stub.paid)


def test_passages_that_are_too_long_do_not_end_the_job(tree, tmp_path):
    message = {"error": {"message": "max_tokens too large: the maximum context length is exceeded"}}
    with StubEndpoint(lambda number, _: Reply(400, message) if number < 15 else None) as stub:
        result, _ = made(tree, tmp_path / "out", stub, tmp_path / "cache", concurrency=1)
    assert result.state == "succeeded", result.end_reason
    assert result.incomplete
    said = facts(tmp_path / "out")["asking"]["language_model"]
    assert (said["without_answer"], said["failed_tries"]) == (15, {"status 400": 15})
    assert "max_tokens" in stub.requests[-1]


def test_only_what_was_asked_for_both_passages_is_answered_by_both(tree, tmp_path):
    def behave(number, request):
        query = {"type": "multi_hop", "query": f"what about {number} and the other?"}
        return json.dumps({"queries": [query]})

    for types, positives in (({"question": 1}, 1), ({"multi_hop": 1}, 2)):
        out = tmp_path / str(positives)
        with StubEndpoint(behave) as stub:
            made(tree, out, stub, out / "cache", types=types, per_passage=1)
        counts = Counter(row["query"] for row in rows(out))
        assert max(counts.values()) == positives


def test_a_judge_leaves_out_what_it_scores_low_and_says_what_it_has_not_scored(tree, tmp_path):
    def behave(number, request):
        said = request["messages"][-1]["content"]
        if "Queries:" not in said:
            return None
        if "river number 0" in said:
            return "I would rather not judge [that]."
        return json.dumps({"scores": [9, 2]})

    reporter = RecordingReporter()
    with StubEndpoint(behave) as stub:
        spec = spec_of(tree, stub)
        spec["queries"]["filters"] = {"judge": {"min_score": 7}}
        result = run_local(spec, tmp_path / "out", reporter, cache=tmp_path / "cache")
    assert result.state == "succeeded", result.end_reason
    told = facts(tmp_path / "out")["asking"]
    passages = told["language_model"]["passages"]
    unjudged = told["language_model"]["unjudged_queries"]
    assert unjudged == 6
    assert told["left_out"] == {"judged too low": passages - 3}
    assert "6 queries are kept without a score" in notices(reporter)


def test_a_stop_ends_the_pauses_between_tries(tree, tmp_path):
    class StopSoon(RecordingReporter):
        stop = StopSignal()

        def emit(self, event):
            super().emit(event)
            if event.type == "phase" and event.data.phase == "asking":
                threading.Timer(0.5, self.stop.request, ["cancel"]).start()

    reporter = StopSoon()
    with StubEndpoint(lambda *_: Reply(503, {}, {"Retry-After": "600"})) as stub:
        result = run_local(
            spec_of(tree, stub), tmp_path / "out", reporter, cache=tmp_path / "cache", stop=reporter.stop
        )
        assert stub.calls == 4
    assert result.state == "cancelled"
