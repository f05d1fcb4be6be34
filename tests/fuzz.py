"""A real API server on a database with something in it, and Schemathesis against it."""

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import uvicorn

from api.app import create_app
from api.listener import open_listener
from api.throttle import Throttle
from core.artifacts import Library
from core.jobs.events import Event, EventType
from core.jobs.reasons import EndReason
from core.settings import Settings
from core.spec import parse_spec
from core.store import Store, open_store
from core.store.artifacts import NewArtifact
from core.store.attempts.leases import Capacity
from core.store.attempts.progress import ProgressUpdate
from core.store.new_jobs import NewJob
from migrations import upgrade
from tests.held import held_by


@dataclass(frozen=True)
class Target:
    """A server to send requests to, an administrator's key, and ids of what is there, by parameter."""

    url: str
    key: str
    ids: dict[str, str]


@contextlib.contextmanager
def temporary_database(server: str) -> Iterator[str]:
    """A new database of a PostgreSQL server, which is dropped at the end."""
    name = f"reason_fuzz_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    try:
        yield server.rpartition("/")[0] + f"/{name}"
    finally:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@contextlib.contextmanager
def serving(settings: Settings) -> Iterator[Target]:
    """The API in a thread, on a free port. Its throttle lets the fuzzer's wrong keys through."""
    upgrade(settings.database_url)
    store = open_store(settings)
    _, key = store.keys.create("fuzzer", ["admin"])
    ids = _fill(store, settings)
    store.close()
    listener = open_listener("127.0.0.1", 0)
    app = create_app(settings, throttle=Throttle(burst=10**9))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.01)
        yield Target(f"http://127.0.0.1:{listener.getsockname()[1]}", key, ids)
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def _fill(store: Store, settings: Settings) -> dict[str, str]:
    """A pipeline of a job that succeeded, with events, metrics, a log and a model. Returns their ids."""
    folder = settings.data_dir / "made"
    folder.mkdir(parents=True)
    (folder / "weights.bin").write_bytes(b"0123456789" * 100)
    (settings.data_dir / "pairs.jsonl").write_text('{"query": "a", "positive": "b"}\n')
    spec = {"kind": "train", "base_model": "org/model", "dataset": f"file:{settings.data_dir}/pairs.jsonl"}
    pipeline, _ = store.pipelines.create(None, {}, ["train"], [NewJob(spec=parse_spec(spec), stage="train")])
    claim = store.leases.claim(Capacity(worker="w"), 60)
    assert claim is not None
    event = Event(type=EventType.METRIC, data={"step": 1, "values": {"loss": 1.0}})
    batch = ProgressUpdate(events=[event], metrics=[("loss", 1, 1.0, event.at)], log="one line\n")
    store.progress.record(claim, batch)
    published = Library(settings.artifact_url).publish(folder, "model", {})
    manifest = published.manifest
    made = NewArtifact(
        "model", "model", published.uri, manifest.sha256, manifest.bytes, manifest.model_dump(mode="json")
    )
    ended = store.leases.finish(claim, EndReason.SUCCEEDED, outputs=[held_by(store, made)])
    return {
        "pipeline_id": pipeline.id,
        "job_id": ended.id,
        "artifact_id": ended.outputs["model"].partition(":")[2],
        "dataset": ended.outputs["model"].partition(":")[2],
        "path": "weights.bin",
    }


_REFUSALS = [
    line
    for call in (
        "POST /jobs",
        "POST /jobs/estimate",
        "POST /pipelines",
        "POST /recipes/{name}/expand",
        "POST /datasets",
        "POST /models",
        "POST /search",
        "POST /webhooks",
    )
    for line in (
        "[[operations]]",
        f'include-name = "{call}"',
        "[operations.checks.positive_data_acceptance]",
        # What JSON Schema cannot say: how fields go together, what a reference names, what a file holds.
        "expected-statuses = [200, 201, 400, 401, 403, 404, 409, 413, 422]",
    )
]


@dataclass(frozen=True)
class Found:
    """How a run of Schemathesis ended: 0 without a failure."""

    status: int
    output: str
    requests: int


def fuzz(target: Target, folder: Path, *, examples: int, seed: int, phases: str, known_ids: bool) -> Found:
    """Run Schemathesis with every check.

    ``known_ids``: paths name things that exist; else the fuzzer makes them up.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "schemathesis.toml"
    known = target.ids.items() if known_ids else ()
    lines = [f'"path.{name}" = {json.dumps(value)}' for name, value in known]
    config.write_text("\n".join(["[parameters]", *lines, *_REFUSALS, ""]))
    command = [
        str(Path(sys.executable).parent / "schemathesis"),
        f"--config-file={config}",
        "run",
        f"{target.url}/openapi.json",
        f"--header=Authorization: Bearer {target.key}",
        f"--max-examples={examples}",
        f"--seed={seed}",
        f"--phases={phases}",
        "--checks=all",
        "--continue-on-failure",
        "--no-shrink",
        "--request-timeout=120",  # a busy machine is slow, and that is no failure
        "--suppress-health-check=all",
    ]
    environment = {**os.environ, "NO_COLOR": "1"}
    ended = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)
    output = ended.stdout + ended.stderr
    generated = re.search(r"(\d+) generated", output)
    return Found(ended.returncode, output, int(generated[1]) if generated else 0)
