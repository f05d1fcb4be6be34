"""Submits a job over HTTP; the store claims it for a worker."""

from fastapi.testclient import TestClient

from core.store.attempts.leases import Capacity

CPU = Capacity(worker="w1")


def post(http: TestClient, spec: dict, **headers: str):
    return http.post("/jobs", json=spec, headers=headers)
