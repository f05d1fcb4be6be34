"""SIGKILL of the job's process, the worker and the API, again and again: is anything lost or done twice?

Run: ``make kills`` (some ten minutes), or ``python -m benchmarks.kills ROUNDS``. Writes
benchmarks/reports/kills.json and kills.md. Every round checks what the tests check: the job succeeded exactly
once, its events are numbered without gaps, its curve has each step once, its outputs are there once.

Recovery is the time from the kill to the first step that the next attempt reports; the lease (how long a dead
worker is trusted) is part of it.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.report import write_report
from core.jobs.views import JobView
from tests.faults.checks import check_resumed, check_succeeded_once
from tests.faults.conftest import make_long_spec
from tests.faults.service import Service, until
from tests.tiny import make_model

_LEASE_SECONDS = 3


def kill_process(service: Service, job: JobView) -> int:
    service.job_process(job.id).kill()
    return 2


def kill_worker(service: Service, job: JobView) -> int:
    service.kill("worker")
    service.start("worker")
    return 2


def kill_api(service: Service, job: JobView) -> int:
    service.kill("api")
    service.start("api")
    return 1


def rounds(
    service: Service, spec: dict[str, Any], kill: Callable[[Service, JobView], int], count: int
) -> list[float]:
    """Seconds of recovery, a round each. Raises `AssertionError` when a promise is broken."""
    seconds = []
    for number in range(count):
        job = service.client.submit({**spec, "name": f"{kill.__name__}-{number}"})
        service.wait_for_step(job.id, 60)
        killed_at, begun = datetime.now(UTC), time.monotonic()
        attempts = kill(service, job)
        if attempts == 2:
            until(lambda job=job: service.client.job(job.id).attempt == 2, what="the second attempt")
            seconds.append(_first_step(service, job.id, killed_at))
        else:
            until(lambda: service.client.workers(), what="the API answers")
            seconds.append(time.monotonic() - begun)
        check_succeeded_once(service, service.wait(job.id), attempts=attempts)
        if attempts == 2:
            check_resumed(service, job.id)
    return sorted(seconds)


def _first_step(service: Service, job_id: str, killed_at: datetime) -> float:
    def found() -> float | None:
        for event in service.client.events(job_id):
            if event.attempt == 2 and event.type == "progress":
                return (event.at - killed_at).total_seconds()
        return None

    return until(found, what="a step of the second attempt")


def main(count: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spec = make_long_spec(make_model(folder / "tiny"), folder / "pairs.jsonl")
        (folder / "service").mkdir()
        service = Service(folder / "service", lease_seconds=_LEASE_SECONDS).start()
        try:
            found = {
                kill.__name__.replace("_", " "): rounds(service, spec, kill, count)
                for kill in (kill_process, kill_worker, kill_api)
            }
        finally:
            service.stop()
    write(found)


def write(found: dict[str, list[float]]) -> None:
    rows = {
        name: {
            "rounds_passed": len(seconds),  # a broken promise ends the benchmark with an AssertionError
            "recovery_p50_s": round(statistics.median(seconds), 2),
            "recovery_max_s": round(seconds[-1], 2),
        }
        for name, seconds in found.items()
    }
    lines = [
        "when the job succeeds exactly once, with events without gaps and each step of its curve once.",
        "",
        "| killed | rounds passed | recovery p50 | recovery max |",
        "|---|---:|---:|---:|",
    ]
    for name, row in rows.items():
        columns = f"{row['recovery_p50_s']} s | {row['recovery_max_s']} s"
        lines.append(f"| {name.removeprefix('kill ')} | {row['rounds_passed']} | {columns} |")
    setting = f"SQLite, filesystem broker, lease {_LEASE_SECONDS} s. A round passes"
    write_report(
        "kills",
        {"lease_seconds": _LEASE_SECONDS, "results": rows},
        lambda where: ["# SIGKILL, again and again", "", f"{where}. {setting}", *lines],
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
