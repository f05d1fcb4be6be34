"""Queries by a language model: how close the calls come to the ideal, and whether memory stays flat.

Run: ``python -m benchmarks.asking``. A stub (tests/stub_llm.py, a process of its own) answers after 50 ms; 16
calls are made at once. The ideal is passages x 50 ms / 16. Each size runs in a process of its own, then once
more: the second run must make no call.
"""

import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.report import write_report
from core.jobs.events import Event
from core.process.local import run_local
from core.runtime.reporter import RecordingReporter

SECONDS, CONCURRENCY = 0.05, 16
SIZES = (2_500, 10_000)
PORT = 8899


class Phases(RecordingReporter):
    """When each phase began."""

    def __init__(self) -> None:
        super().__init__()
        self.began: list[tuple[str, float]] = []

    def emit(self, event: Event) -> None:
        super().emit(event)
        if event.type == "phase":
            self.began.append((event.data.phase, time.monotonic()))

    def seconds(self, phase: str) -> float:
        ends = [*(at for _, at in self.began[1:]), time.monotonic()]
        spans = zip(self.began, ends, strict=True)
        return round(sum(end - at for (name, at), end in spans if name == phase), 2)


def write_passages(path: Path, count: int) -> None:
    generator = random.Random(1)
    words = [f"w{generator.randrange(10**6):06d}" for _ in range(20_000)]
    with path.open("w") as file:
        for number in range(count):
            sentences = [" ".join(generator.choices(words, k=14)).capitalize() for _ in range(9)]
            row = {"id": str(number), "title": f"subject {number}", "text": ". ".join(sentences) + "."}
            file.write(json.dumps(row) + "\n")


def run_one(folder: Path, count: int, name: str) -> dict[str, Any]:
    """In this process: the seconds and the memory of a prepare job."""
    source = folder / f"{count}.jsonl"
    if not source.exists():
        write_passages(source, count)
    llm = {"endpoint": f"http://127.0.0.1:{PORT}/v1", "model": str(count), "concurrency": CONCURRENCY}
    spec = {
        "kind": "prepare",
        "source": f"file:{source}",
        "task": "retrieval",
        "queries": {"of": ["llm"], "llm": llm},
    }
    reporter = Phases()
    begun = time.monotonic()
    result = run_local(spec, folder / name, reporter, cache=folder / "cache")
    assert result.state == "succeeded", result.end_reason
    total = time.monotonic() - begun
    ideal = count * SECONDS / CONCURRENCY
    page = json.loads((folder / name / "dataset" / "dataset.json").read_text())["asking"]["language_model"]
    return {
        "passages": count,
        "ideal_seconds": round(ideal, 2),
        "asking_seconds": reporter.seconds("asking"),
        "job_seconds": round(total - reporter.seconds("starting"), 2),
        "ratio": round(reporter.seconds("asking") / ideal, 3),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "from_store": page["from_store"],
        "new_tokens": page["new_tokens"],
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        command = [sys.executable, "-m", "tests.stub_llm", str(PORT), str(SECONDS)]
        stub = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert stub.stdin is not None
        assert stub.stdout is not None
        stub.stdout.readline()
        runs = []
        for count in SIZES:
            for which in ("first", "second"):
                own = [sys.executable, "-m", "benchmarks.asking", name, str(count), f"{count}-{which}"]
                found = json.loads(subprocess.run(own, check=True, capture_output=True, text=True).stdout)
                runs.append({"run": which, **found})
        stub.stdin.close()
        counted = json.loads(stub.stdout.read())
    data = {"seconds_a_call": SECONDS, "concurrency": CONCURRENCY, "runs": runs, "stub": counted}
    write_report("asking", data, lambda where: to_markdown(data, where))


def to_markdown(data: dict[str, Any], where: str) -> list[str]:
    calls = f"{data['concurrency']} calls at once"
    lines = [
        "# Queries by a language model: calls",
        "",
        f"{where}. A stub answers after {data['seconds_a_call'] * 1000:g} ms, {calls}.",
        "The job is everything but the start of Python.",
        "",
        "| passages | run | ideal s | asking s | asking / ideal | job s | peak MiB | stored answers used |",
        "|---:|---|---:|---:|---:|---:|---:|---:|",
    ]
    for run in data["runs"]:
        lines.append(
            f"| {run['passages']:,} | {run['run']} | {run['ideal_seconds']:g} | {run['asking_seconds']:g} "
            f"| {run['ratio']:g} | {run['job_seconds']:g} | {run['peak_mib']:,} | {run['from_store']:,} |"
        )
    stub = data["stub"]
    lines += ["", f"The stub counted {stub['calls']:,} calls, {stub['repeated']} of them repeated."]
    return lines


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(run_one(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])))
    else:
        main()
