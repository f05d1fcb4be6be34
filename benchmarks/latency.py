"""From POST to the first line of the job's process, warm, on the embedded service and on PostgreSQL + Redis.

Run: ``make bench``. Writes benchmarks/reports/latency.json and latency.md.

The moment of the POST is taken before the request is sent; the first line is the process's own time stamp of
its ``starting`` event. Both clocks are this machine's.
"""

import json
import os
import statistics
import tempfile
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import redis

from benchmarks.report import write_report
from client.client import Client
from tests.faults.service import Service
from tests.tiny import make_model

_JOBS = 30
_WARM_UP = 3


def measure(folder: Path, model: Path, pairs: Path, **settings: Any) -> dict[str, float]:
    """Milliseconds over `_JOBS` jobs, one after the other."""
    folder.mkdir()
    # The service's own defaults: only the tests want short leases and sweeps.
    service = Service(folder, lease_seconds=15, sweep_seconds=1, **settings).start()
    spec = {"kind": "train", "base_model": f"file:{model}", "dataset": f"file:{pairs}", "max_steps": 1}
    try:
        samples = [one(service.client, spec) for _ in range(_WARM_UP + _JOBS)][_WARM_UP:]
    finally:
        service.stop()
    samples.sort()
    return {
        "p50_ms": round(statistics.median(samples), 1),
        "p90_ms": round(samples[int(0.9 * len(samples))], 1),
        "max_ms": round(samples[-1], 1),
        "jobs": len(samples),
    }


def one(client: Client, spec: dict[str, Any]) -> float:
    """Submits a job, waits for its end, and returns POST -> first line in milliseconds."""
    posted = datetime.now(UTC)
    job = client.submit(spec)
    ended = client.wait(job.id, timeout=120, poll_seconds=0.2)
    assert ended.state == "succeeded", ended.end_reason
    first = next(event for event in client.events(job.id) if event.type == "phase")
    return (first.at - posted).total_seconds() * 1000


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = make_model(folder / "tiny")
        pairs = folder / "pairs.jsonl"
        pairs.write_text(
            "".join(json.dumps({"query": f"q {n}", "positive": f"d {n}"}) + "\n" for n in range(16))
        )
        found = {"embedded (SQLite, filesystem broker)": measure(folder / "embedded", model, pairs)}
        server, broker = os.environ["REASON_TEST_POSTGRES"], os.environ["REASON_TEST_REDIS"]
        database = f"reason_bench_{uuid.uuid4().hex[:8]}"
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{database}"')
        redis.Redis.from_url(broker).flushdb()
        try:
            url = server.rpartition("/")[0] + f"/{database}"
            found["PostgreSQL + Redis"] = measure(
                folder / "fleet", model, pairs, database_url=url, broker_url=broker
            )
        finally:
            with psycopg.connect(server, autocommit=True) as connection:
                connection.execute(f'DROP DATABASE "{database}" WITH (FORCE)')
    write(found)


def write(found: dict[str, dict[str, float]]) -> None:
    lines = [
        "| service | p50 | p90 | max | jobs |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, row in found.items():
        lines.append(
            f"| {name} | {row['p50_ms']} ms | {row['p90_ms']} ms | {row['max_ms']} ms | {row['jobs']} |"
        )
    title = "# From POST to the first line of the job's process"
    write_report(
        "latency",
        {"results": found},
        lambda where: [title, "", f"{where}. Warm fork server, one job after the other.", "", *lines],
    )


if __name__ == "__main__":
    main()
