"""Runs mine jobs and reads the datasets that they make."""

import json
from pathlib import Path

import pyarrow.parquet as pq

from core.process.local import run_local
from core.runtime.reporter import RecordingReporter

FREE = {"positive_aware": None, "near_duplicates": None}


def mine(out: Path, dataset, model, **fields):
    reporter = fields.pop("reporter", None) or RecordingReporter()
    return run_local(
        {"kind": "mine", "dataset": dataset, "model": model, **fields}, out, reporter, overwrite=True
    )


def made(out: Path, split: str = "train") -> list[dict]:
    return pq.read_table(out / "dataset" / f"{split}.parquet").to_pylist()


def page(out: Path) -> dict:
    return json.loads((out / "dataset" / "dataset.json").read_text())
