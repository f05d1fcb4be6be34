"""A database of the first version: brought up to date, shown, and its queued jobs run.

``tests/store/first_release.sql`` was written by the first commit with a service. One field of a queued job's
spec (``learning_rate_decay``) stands for what a later version has dropped.
"""

import contextlib
import shutil
import sqlite3
from pathlib import Path

ROWS = Path(__file__).parent.parent / "store" / "first_release.sql"
PLACE = "/srv/reason"


def test_rows_of_the_first_release_are_shown_and_run(service, tiny_model: Path, pairs_file: Path):
    upgraded = service()
    data = upgraded.folder / "data"
    data.mkdir()
    shutil.copytree(tiny_model, data / "model")
    shutil.copy(pairs_file, data / "rows.jsonl")
    with contextlib.closing(sqlite3.connect(upgraded.database)) as connection:
        connection.executescript(ROWS.read_text(encoding="utf-8").replace(PLACE, str(data)))
    upgraded.start()
    jobs = {job.name: job for job in upgraded.client.jobs()}
    assert set(jobs) == {"done", "failed", "queued", "waiting"}
    assert (jobs["done"].state, jobs["done"].labels) == ("succeeded", {"team": "search"})
    assert jobs["failed"].end_reason.message == "rows.jsonl:3: no query"
    assert [event.type for event in upgraded.client.events(jobs["done"].id)][:2] == ["state", "state"]
    assert {"phase", "metric", "notice"} <= {event.type for event in upgraded.client.events(jobs["done"].id)}
    [model] = upgraded.client.artifacts(jobs["done"].id)
    assert (model.kind, model.version) == ("model", 1)
    assert [artifact.name for artifact in upgraded.client.models()] == ["done"]
    for name in ("queued", "waiting"):
        ended = upgraded.wait(jobs[name].id)
        assert ended.state == "succeeded", ended.end_reason
    told = upgraded.notices(jobs["queued"].id)
    assert any(sentence.startswith("learning_rate_decay is in the stored spec") for sentence in told)
