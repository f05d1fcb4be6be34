"""Submits jobs and data over HTTP; the store claims jobs for a worker."""

import json

from fastapi.testclient import TestClient

from core.jobs.reasons import EndReason
from core.store.artifacts import NewArtifact
from core.store.attempts.leases import Capacity
from tests.held import held_by

CPU = Capacity(worker="w1")

ROWS = "".join(
    json.dumps({"query": f"what is {number}", "positive": f"it is number {number}"}) + "\n"
    for number in range(400)
)


def post(http: TestClient, spec: dict, **headers: str):
    return http.post("/jobs", json=spec, headers=headers)


def run_next(http, reason=EndReason.SUCCEEDED, message=None):
    """What a worker does to the next job. Returns its id."""
    store = http.app.state.store
    claim = store.leases.claim(Capacity("w"), 60)
    assert claim is not None
    outputs = []
    if reason is EndReason.SUCCEEDED:
        outputs = [
            NewArtifact(
                output=name,
                kind=name,
                uri=f"file:///{claim.job_id}/{name}",
                sha256="0" * 64,
                bytes=1,
                manifest={},
            )
            for name in {"mine": ["dataset", "report"], "train": ["model", "report"]}.get(
                claim.kind, ["report"]
            )
        ]
    store.leases.finish(claim, reason, message, [held_by(store, output) for output in outputs])
    return claim.job_id


def upload_rows(http, name="pairs", text=ROWS) -> str:
    answer = http.post("/datasets", params={"name": name, "filename": "rows.jsonl"}, content=text.encode())
    assert answer.status_code == 201, answer.text
    return f"dataset:{name}"
