"""Runs evaluate jobs and reads their reports."""

import json
from pathlib import Path

from core.process.local import run_local
from core.runtime.reporter import RecordingReporter

METRICS = ["ndcg@10", "mrr@10", "recall@10"]


def evaluate(out: Path, models, datasets, **fields):
    reporter = fields.pop("reporter", None) or RecordingReporter()
    spec = {
        "kind": "evaluate",
        "models": [model if isinstance(model, dict | str) else f"file:{model}" for model in models],
        "datasets": [data if isinstance(data, dict) else f"file:{data}" for data in datasets],
        "metrics": METRICS,
        "resources": {"gpus": 0},
        **fields,
    }
    result = run_local(spec, out, reporter, stop=getattr(reporter, "stop", None), cache=out.parent / "cache")
    return result, reporter.events


def report(out: Path) -> dict:
    return json.loads((out / "report" / "report.json").read_text())
