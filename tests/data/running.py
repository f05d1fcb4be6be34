"""Writes rows, runs prepare jobs on them, and reads what they make."""

import json
from pathlib import Path

import pyarrow.parquet as pq

from core.process.local import run_local
from core.runtime.reporter import RecordingReporter


def write(path: Path, rows: list) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def prepare(out: Path, source, **fields):
    return run_local({"kind": "prepare", "source": source, **fields}, out, RecordingReporter())


def facts(out: Path) -> dict:
    return json.loads((out / "dataset" / "dataset.json").read_text())


def rows(out: Path, split: str = "train") -> list[dict]:
    return pq.read_table(out / "dataset" / f"{split}.parquet").to_pylist()
