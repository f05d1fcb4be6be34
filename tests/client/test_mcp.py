"""The service for agents: what its tools read, and that nothing starts or stops unless it is meant."""

import json
import subprocess
import sys

import anyio
import pytest
from mcp import Client as Agent
from mcp import StdioServerParameters

from client.client import Client
from client.mcp_server import make_server
from core.store import open_store
from tests.fuzz import serving
from tests.specs import MINIMAL


@pytest.fixture
def target(settings):
    with serving(settings) as found:
        yield found


@pytest.fixture
def call(target):
    """Calls a tool; returns its answer, or the text of its refusal."""
    with Client(target.url, target.key) as client:
        server = make_server(client)

        def run(tool: str, /, **arguments):
            async def ask():
                async with Agent(server) as agent:
                    return await agent.call_tool(tool, arguments)

            answer = anyio.run(ask)
            text = answer.content[0].text if answer.content else ""
            if answer.is_error:
                return text
            found = answer.structured_content
            return found["result"] if found is not None and set(found) == {"result"} else found or text

        yield run


@pytest.fixture
def jobs(settings, target):
    store = open_store(settings)
    yield store.jobs
    store.close()


def test_an_agent_reads_jobs_artifacts_and_recipes(call, target):
    [job] = call("list_jobs", kind="train")
    assert (job["id"], job["state"]) == (target.ids["job_id"], "succeeded")
    told = call("get_job", job_id=job["id"])
    assert told["outputs"] == {"model": f"artifact:{target.ids['artifact_id']}"}
    assert call("get_job_spec", job_id=job["id"])["base_model"] == "org/model"
    assert call("get_job_log", job_id=job["id"]) == "one line\n"
    [pipeline] = call("list_pipelines")
    assert call("get_pipeline", pipeline_id=pipeline["id"])["stages"] == {"train": f"succeeded ({job['id']})"}
    assert len(call("list_artifacts", kind="model")) == 1
    assert {one["name"] for one in call("list_recipes")} >= {"documents", "pairs"}
    assert "learning_rate" in call("describe", what="train")["properties"]


def test_a_job_starts_only_when_it_is_meant(call, settings, jobs):
    spec = {**MINIMAL["train"], "dataset": f"file:{settings.data_dir}/pairs.jsonl", "name": "asked"}
    count = len(jobs.page()[0])
    assert call("submit_job", spec=spec)["dry_run"] is True
    assert len(jobs.page()[0]) == count
    made = call("submit_job", spec=spec, dry_run=False)
    assert made["state"] == "queued"
    assert call("change_job", job_id=made["id"], action="cancel")["would"] == "cancel"
    assert jobs.get(made["id"]).state == "queued"
    call("change_job", job_id=made["id"], action="cancel", dry_run=False)
    assert jobs.get(made["id"]).state == "cancelled"


def test_a_recipe_starts_only_when_it_is_meant(call, settings):
    (settings.data_dir / "rows.jsonl").write_text(
        "".join(json.dumps({"query": f"q {n}", "positive": f"p {n}"}) + "\n" for n in range(60))
    )
    inputs = {"data": f"file:{settings.data_dir}/rows.jsonl", "base_model": "org/model"}
    assert "mine" in call("expand_recipe", recipe="pairs", inputs=inputs)["stages"]
    assert call("start_recipe", recipe="pairs", inputs=inputs)["stages"][0] == "prepare"
    assert len(call("list_pipelines")) == 1
    made = call("start_recipe", recipe="pairs", inputs=inputs, name="mine", dry_run=False)
    assert call("cancel_pipeline", pipeline_id=made["id"])["state"] != "cancelled"
    assert call("cancel_pipeline", pipeline_id=made["id"], dry_run=False)["state"] == "cancelled"


def test_refusals_say_what_is_wrong(call):
    told = call("submit_job", spec={**MINIMAL["train"], "learning_rat": 1, "batch_size": 1})
    assert "learning_rat: unknown field; did you mean learning_rate?" in told
    assert "batch_size" in told
    assert "job_" in call("get_job", job_id="job_01k9zq5m2w8r4t6y0b3d5f7h9j")
    assert "action is one of cancel" in call("change_job", job_id="x", action="explode")


def test_tools_say_whether_they_change_anything(target):
    async def ask():
        with Client(target.url, target.key) as client:
            async with Agent(make_server(client)) as agent:
                return (await agent.list_tools()).tools

    hints = {tool.name: tool.annotations for tool in anyio.run(ask)}
    changing = {name for name, hint in hints.items() if not hint.read_only_hint}
    assert changing == {"start_recipe", "submit_job", "change_job", "cancel_pipeline"}


def test_the_command_speaks_over_its_pipes(target):
    command = [sys.executable, "-m", "client.cli", "mcp"]
    environment = {"REASON_API_URL": target.url, "REASON_API_KEY": target.key}

    async def ask():
        server = StdioServerParameters(command=command[0], args=command[1:], env=environment)
        async with Agent(server) as agent:
            return await agent.call_tool("list_jobs", {})

    assert not anyio.run(ask).is_error
    helped = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True)
    assert "Model Context Protocol" in helped.stdout
