"""``reason improve`` on real data: what comes out, how long it takes, and what the second run does again.

Run: ``python -m benchmarks.improve NAME DATA MODEL``, with a folder of documents or a file of pairs, and the
folder of a model. Writes benchmarks/reports/improve_NAME.json and improve_NAME.md. A service of its own is
started. The pipeline runs twice; with ``changed`` as a fourth argument also after one document has changed.
"""

import shutil
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.report import write_report
from client.client import Client
from client.improve import find_data, find_model, service_here, submit_once
from client.watch import watch_pipeline
from core.settings import Settings

_RUNS = ("first", "again", "after one document has changed")


@dataclass(frozen=True)
class Run:
    """One run of the pipeline. ``ran``: seconds of the stages that took nothing from an earlier job."""

    seconds: float
    verdicts: list[str]
    ran: dict[str, float]
    reused: list[str]


def one_run(client: Client, data: Path, model: Path, console: Console) -> Run:
    """Raises `AssertionError` if the pipeline does not succeed."""
    begun = time.monotonic()
    reference, recipe = find_data(client, str(data), console)
    inputs = {"data": reference, "base_model": find_model(client, str(model), console), "name": "improved"}
    made, _ = submit_once(client, {"recipe": recipe, "inputs": inputs})
    ended = watch_pipeline(client, made.id, console)
    seconds = time.monotonic() - begun
    assert ended.state == "succeeded", ended.end_reason
    jobs = {name: client.job(stage.job) for name, stage in ended.stages.items()}
    return Run(
        round(seconds, 1),
        [verdict.verdict for verdict in ended.verdicts],
        {
            name: round((job.finished_at - job.started_at).total_seconds(), 1)
            for name, job in jobs.items()
            if not job.reused_from and job.finished_at and job.started_at
        },
        [name for name, job in jobs.items() if job.reused_from],
    )


def change_one(data: Path) -> None:
    """Another sentence in the first document, or another pair."""
    if data.is_dir():
        first = sorted(path for path in data.rglob("*.md"))[0]
        text = f"{first.read_text(encoding='utf-8')}\n\n## An addition\n\nThis part was added later.\n"
        first.write_text(text, encoding="utf-8")
        return
    line = '{"query": "what was added later", "positive": "this pair was added later"}\n'
    data.write_text(data.read_text(encoding="utf-8") + line, encoding="utf-8")


def main(name: str, data: Path, model: Path, *, changed: bool) -> None:
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / data.name
        shutil.copytree(data, copy) if data.is_dir() else shutil.copyfile(data, copy)
        for path in (copy, *copy.rglob("*")):  # the original may be read-only
            path.chmod(0o755 if path.is_dir() else 0o644)
        settings = Settings(data_dir=Path(folder) / "service")
        runs: dict[str, Run] = {}
        with service_here(settings, console, REASON_DATA_DIR=str(settings.data_dir)) as client:
            for which in _RUNS if changed else _RUNS[:-1]:
                if which == _RUNS[-1]:
                    change_one(copy)
                runs[which] = one_run(client, copy, model, console)
    write(name, data, runs)


def write(name: str, data: Path, runs: dict[str, Run]) -> None:
    lines = ["", "| run | seconds | stages that ran | taken from earlier runs |", "|---|---:|---|---|"]
    for which, run in runs.items():
        ran = ", ".join(f"{stage} {seconds:g} s" for stage, seconds in run.ran.items()) or "none"
        lines.append(f"| {which} | {run.seconds:g} | {ran} | {', '.join(run.reused) or 'none'} |")
    told: dict[str, Any] = {which: asdict(run) for which, run in runs.items()}
    write_report(
        f"improve_{name}",
        {"data": data.name, "runs": told},
        lambda where: [
            f"# reason improve: {name}",
            "",
            f"{where}. Verdict of the first run: {' '.join(runs[_RUNS[0]].verdicts)}",
            *lines,
        ],
    )


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), changed="changed" in sys.argv[4:])
