"""What ``reason doctor`` finds, and what it says to do."""

import json
from typing import NamedTuple

import pytest

from core.settings import Settings
from core.store import open_store
from core.store.fleet import Inventory
from migrations import upgrade
from worker import doctor


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.fixture
def found(settings, monkeypatch, capsys):
    """Runs the checks with these settings; returns the exit code and the findings by what they are of."""

    def run(**changes) -> tuple[int, dict[str, dict]]:
        asked = {"data_dir": settings.data_dir, "offline": True, "api_url": "", **changes}
        monkeypatch.setattr(doctor, "Settings", lambda: Settings(**asked))
        code = doctor.examine(["--json"])
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        return code, {line["what"]: line for line in lines}

    return run


def problems(findings: dict[str, dict]) -> list[str]:
    return [what for what, line in findings.items() if line["state"] == "problem"]


def test_a_new_folder_has_no_problem(found):
    code, findings = found()
    assert (code, problems(findings)) == (0, [])
    assert {what for what, line in findings.items() if line["state"] == "ok"} >= {"disk", "broker", "storage"}
    assert "reason db upgrade" in findings["database"]["advice"]
    assert "torch" in findings["installation"]["told"]


def test_workers_are_seen(found, settings):
    upgrade(settings.database_url)
    assert found()[1]["workers"]["state"] == "note"
    store = open_store(settings)
    store.workers.register(Inventory("rack-7", 1, [], 10**9, ["cpu"]))
    store.close()
    assert found()[1]["workers"]["told"] == "1 up: rack-7"


@pytest.mark.parametrize(
    ("changes", "what", "advice"),
    [
        ({"database_url": "postgresql://127.0.0.1:1/x"}, "database", "REASON_DATABASE_URL"),
        ({"broker_url": "redis://127.0.0.1:1/0"}, "broker", "REASON_BROKER_URL"),
        ({"artifact_url": "file:///proc/none"}, "storage", "REASON_ARTIFACT_URL"),
    ],
)
def test_what_does_not_answer_is_a_problem_with_advice(found, changes, what, advice):
    code, findings = found(**changes)
    assert (code, problems(findings)) == (1, [what])
    assert advice in findings[what]["advice"]


def test_a_folder_that_cannot_be_written_is_a_problem(found, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    code, findings = found(
        data_dir=tmp_path / "file" / "data", broker_url="memory://", artifact_url="memory://x"
    )
    assert code == 1
    assert "disk" in problems(findings)


def test_a_disk_that_is_nearly_full_and_a_service_that_is_down_are_notes(found, monkeypatch):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: Usage(10**12, 10**12, 10**9))
    code, findings = found(api_url="http://127.0.0.1:9")
    assert (code, problems(findings)) == (0, [])
    assert "reason gc" in findings["disk"]["advice"]
    assert "reason serve" in findings["service"]["advice"]


def test_it_ends_with_how_many_problems_there_are(settings, monkeypatch, capsys):
    asked = {"data_dir": settings.data_dir, "offline": True, "api_url": ""}
    monkeypatch.setattr(doctor, "Settings", lambda: Settings(**asked))
    assert doctor.examine([]) == 0
    assert capsys.readouterr().out.endswith("No problem.\n")
