"""Jobs of several processes, and the helpers that they start."""

import contextlib
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

REPOSITORY = Path(__file__).parents[2]


def make_spec(rows: Path, model: Path, **fields) -> dict:
    return {
        "kind": "train",
        "base_model": f"file:{model}",
        "dataset": f"file:{rows}",
        "batch_size": 11,
        "micro_batch_tokens": 128,
        "learning_rate": 2e-3,
        "epochs": 2,
        "logging_steps": 1,
        "resources": {"gpus": 0},
        **fields,
    }


def helpers() -> list[psutil.Process]:
    """With their data loaders, whosever children they are; not those of tests that run beside this one."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        with contextlib.suppress(psutil.NoSuchProcess):
            if (
                "core.process.rank" in (process.info["cmdline"] or ())
                and process.status() != psutil.STATUS_ZOMBIE
            ):
                beside = process.environ().get("PYTEST_XDIST_WORKER") != os.environ.get("PYTEST_XDIST_WORKER")
                found += [] if beside else [process]
    return found


def sabotage(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """Code that helpers, and nobody else, run before they begin."""
    program = "import sys\nif 'core.process.rank' in sys.orig_argv:\n" + textwrap.indent(
        textwrap.dedent(body), "    "
    )
    (folder / "sitecustomize.py").write_text(program)
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{REPOSITORY}")


def start_job(spec: dict, out: Path) -> subprocess.Popen:
    program = f"""
import json
from pathlib import Path
from core.process.local import run_local
from core.runtime.reporter import JsonlReporter
if __name__ == "__main__":
    out = Path({str(out)!r})
    spec = json.loads({json.dumps(spec)!r})
    result = run_local(spec, out / "job", JsonlReporter(out / "events"), processes=2)
    raise SystemExit(f"{{result.state}}: {{result.end_reason}}")
"""
    return subprocess.Popen([sys.executable, "-c", program], cwd=REPOSITORY, stderr=subprocess.DEVNULL)
