"""What sharding saves and costs on a CPU: peak memory of each process, and seconds a step.

Run: ``python -m benchmarks.sharding``. Writes benchmarks/reports/sharding.json and sharding.md. A BERT of
twelve layers of 768 is trained for some steps by one process, by two that share the batches, and by two that
share the model as well. What goes between the processes goes through gloo on one machine: on GPUs other
numbers hold, and `benchmarks.gpu.run` measures those.
"""

import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import psutil

from benchmarks.memory import make_models, make_rows
from benchmarks.report import write_report

_STEPS = 6

CASES: list[tuple[str, int, dict[str, Any]]] = [
    ("one process", 1, {}),
    ("two processes", 2, {}),
    ("two processes, sharded", 2, {"sharding": "fsdp"}),
    ("two processes, sharded, cached", 2, {"sharding": "fsdp", "loss": {"cached": True}}),
]

_JOB = """
import json, sys, time
from pathlib import Path
from core.jobs.events import EventType
from core.process.local import run_local
from core.runtime.reporter import RecordingReporter
moments = []
class Timed(RecordingReporter):
    def emit(self, event):
        super().emit(event)
        if event.type is EventType.METRIC and "loss" in event.data.values:
            moments.append([time.monotonic(), event.data.values["loss"]])
if __name__ == "__main__":
    result = run_local(json.loads(sys.argv[1]), Path(sys.argv[2]), Timed(), processes=int(sys.argv[3]))
    assert result.state == "succeeded", result.end_reason
    print(json.dumps(moments))
"""


def run(spec: dict[str, Any], out: Path, processes: int) -> dict[str, Any]:
    """Trains, and looks at the processes' memory meanwhile."""
    command = [sys.executable, "-c", _JOB, json.dumps(spec), str(out), str(processes)]
    # What is freed goes back to the system at once: the C library would hold most of it.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(1 << 18)}
    job = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    )
    peaks: dict[int, int] = {}
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            try:
                first = psutil.Process(job.pid)
                for process in (first, *first.children()):
                    peaks[process.pid] = max(peaks.get(process.pid, 0), process.memory_info().rss)
            except psutil.NoSuchProcess:
                continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    told, _ = job.communicate()
    ended.set()
    watcher.join()
    if job.returncode:
        raise RuntimeError(f"the job ended with status {job.returncode}")
    moments = json.loads(told.splitlines()[-1])
    times = [moment for moment, _ in moments]
    seconds = [later - earlier for earlier, later in itertools.pairwise(times[1:])]
    return {
        "peak_bytes": sorted(peaks.values(), reverse=True)[:processes],
        "seconds_per_step": statistics.median(seconds),
        "losses": [loss for _, loss in moments],
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = make_models(folder)["base"]
        spec = {
            "kind": "train",
            "base_model": f"file:{model}",
            "dataset": f"file:{make_rows(folder)}",
            "batch_size": 16,
            "micro_batch_tokens": 1024,
            "max_steps": _STEPS,
            "logging_steps": 1,
            "lengths": {"query": 32, "document": 128},
            "loss": {"cached": False},
            "checkpoint": {"every_steps": None, "every_seconds": None},
            "resources": {"gpus": 0},
        }
        found = {}
        for number, (label, processes, fields) in enumerate(CASES):
            found[label] = run({**spec, **fields}, folder / str(number), processes)
            print(label, found[label], flush=True)
    expected = found["one process"]["losses"]
    lines = [
        "",
        f"BERT of 110 million parameters, batch 16, AdamW in float32, {_STEPS} steps: the peak of resident",
        "memory of each process, the loading of the model included, and the median step. Freed memory goes",
        "back to the system at once (MALLOC_MMAP_THRESHOLD_), so that the peak is what was in use.",
        "",
        "| | peak of each process | seconds a step | largest difference of a loss |",
        "|---|---|---|---|",
    ]
    for label, one in found.items():
        peaks = ", ".join(f"{peak / 1e9:.2f} GB" for peak in one["peak_bytes"])
        apart = max(abs(a - b) for a, b in zip(one["losses"], expected, strict=True))
        lines.append(f"| {label} | {peaks} | {one['seconds_per_step']:.2f} | {apart:.1e} |")
    write_report("sharding", {"cases": found}, lambda where: ["# Sharding", "", f"{where}.", *lines])


if __name__ == "__main__":
    main()
