"""``reason improve`` as a user types it: with a service of its own, twice, and after a change."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.faults.service import ROOT
from tests.tiny import WORDS


@pytest.fixture
def docs(tmp_path) -> Path:
    folder = tmp_path / "handbook"
    folder.mkdir()
    for number in range(40):
        words = [WORDS[(number * step) % len(WORDS)] for step in (1, 3, 5)]
        sections = [
            f"## About {word} {number}\n\n" + f"{word} is a part of {number}. " * 20 for word in words
        ]
        (folder / f"page-{number}.md").write_text(f"# Page {number}\n\n" + "\n\n".join(sections))
    return folder


@pytest.fixture
def command(docs, tiny_model, tmp_path) -> dict:
    """The arguments of `subprocess` for one ``reason improve``."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("REASON_")}
    # No service that runs on this machine is used: the folder of this test has its own.
    environment |= {"PYTHONPATH": str(ROOT), "REASON_OFFLINE": "true", "REASON_API_URL": ""}
    improve = [sys.executable, "-m", "client.cli", "improve", str(docs)]
    return {
        "args": [*improve, "--base-model", str(tiny_model), "--json"],
        "cwd": tmp_path,
        "env": {**environment, "OMP_NUM_THREADS": "1"},
    }


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGKILL])
def test_what_ends_the_command_ends_its_service(command, number):
    with subprocess.Popen(**command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as improve:
        assert any(line.startswith("pipe_") for line in improve.stderr)  # a pipeline was begun
        service = psutil.Process(improve.pid).children(recursive=True)
        assert len(service) >= 2
        improve.send_signal(number)
        improve.wait(90)
        _, left = psutil.wait_procs(service, 60)
        for process in left:
            process.kill()
        assert not left


@pytest.mark.slow
def test_documents_to_a_verdict_and_an_index_by_one_command(command, docs):
    def improve() -> dict:
        ended = subprocess.run(**command, capture_output=True, text=True, timeout=280)
        assert ended.returncode == 0, ended.stderr
        assert "reason search job:" in ended.stderr
        return json.loads(ended.stdout)

    first = improve()
    assert first["recipe"] == "documents"
    [verdict] = first["verdicts"]
    assert verdict["outcome"] in ("better", "worse", "no difference")
    assert "index/embeddings" in first["outputs"]
    second = improve()
    stages = second["stages"]
    assert {name: stage["reused_from"] for name, stage in stages.items()} == {
        name: stage["job"] for name, stage in first["stages"].items()
    }
    (docs / "page-7.md").write_text(
        "# Another page\n\n## Of other words\n\n" + "It says something else. " * 20
    )
    third = improve()["stages"]
    assert [name for name, stage in third.items() if stage["reused_from"]] == []
