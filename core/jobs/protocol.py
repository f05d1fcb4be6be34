"""What a job's process is given, and what it leaves: ``request.json`` and ``result.json`` of its folder."""

from pathlib import Path
from typing import Any

from pydantic import Field

from core.spec.parts.base import Lenient

REQUEST, RESULT, EVENTS, LOG = "request.json", "result.json", "events.jsonl", "log.txt"


class RunRequest(Lenient):
    """Everything the process needs: no settings, environment or database besides."""

    job_id: str
    attempt: int
    spec: dict[str, Any]
    spec_version: int = 1  # of requests that do not say
    inputs: dict[str, Any] = Field(default_factory=dict)  # reference -> {uri, sha256, ...} of its artifact
    artifact_url: str | None = None  # None: outputs stay in the folder (`reason run`)
    checkpoints: Path
    cache: Path
    gpus: list[str] = Field(default_factory=list)  # CUDA device ids; empty: the CPU
    processes: int = 1  # that share the work, one a GPU
    offline: bool = False
    trust_remote_code: bool = False
    lease_seconds: float | None = (
        None  # without a heartbeat for so long the process ends; None: no supervisor
    )


class EndReasonRecord(Lenient):
    code: str
    message: str


class RunResult(Lenient):
    """How the job ended: the last thing its process writes."""

    state: str
    end_reason: EndReasonRecord
    outputs: dict[str, Any] = Field(default_factory=dict)
    metrics: dict[str, Any] = Field(default_factory=dict)
