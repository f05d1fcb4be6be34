"""House rules that a machine can hold."""

import subprocess
import sys
from pathlib import Path

import pytest

from core.jobs.reasons import EndReason
from core.jobs.state import MOVES, JobState
from core.settings import Settings

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("module", ["api.app", "worker.celery_app", "client.cli"])
def test_server_worker_and_client_never_import_torch(module: str):
    heavy = ["torch", "transformers", "sentence_transformers", "datasets", "pyarrow"]
    code = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout.strip() == "[]"


def test_every_setting_is_documented():
    text = (ROOT / "docs" / "settings.md").read_text()
    missing = [name for name in Settings.model_fields if f"`REASON_{name.upper()}`" not in text]
    assert missing == []


def test_every_state_and_end_reason_is_documented():
    text = (ROOT / "docs" / "jobs.md").read_text()
    words = [state.value for state in JobState] + [reason.value for reason in EndReason]
    assert [word for word in words if f"`{word}`" not in text] == []


def test_every_state_has_its_moves_and_final_ones_end():
    assert set(MOVES) == set(JobState)
    assert MOVES[JobState.SUCCEEDED] == frozenset()
    reachable = {target for targets in MOVES.values() for target in targets}
    assert reachable | {JobState.WAITING} == set(JobState)


def test_every_end_reason_knows_its_sentence_and_a_reachable_state():
    for reason in EndReason:
        assert reason.sentence
        assert reason.state in MOVES[JobState.RUNNING] | MOVES[JobState.WAITING]
    assert EndReason.of("written by a newer version") is EndReason.CRASHED


def test_no_registry_host_and_no_path_of_one_machine_is_committed():
    tracked = subprocess.run(
        ["git", "ls-files"], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.split()
    for name in tracked:
        if name.endswith((".png", "test_house.py")):
            continue
        text = (ROOT / name).read_text(encoding="utf-8")
        assert "/opt/pypi" not in text, name
        assert "/work/main" not in text, name


def test_the_fork_server_never_initialises_cuda():
    """On a host with a GPU: bitsandbytes, imported by peft, would."""
    code = (
        "import torch; torch.cuda.is_available = lambda: True\n"
        "import core.run.preload, sys\n"
        "found = [name for name in ('bitsandbytes', 'peft') if name in sys.modules]\n"
        "print(found, torch.cuda.is_initialized())"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout.strip() == "[] False"
