"""The protocol of a job's process: it reads ``request.json`` and writes ``result.json`` in its folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from core.spec.parts.base import Lenient

REQUEST, RESULT, EVENTS, LOG = "request.json", "result.json", "events.jsonl", "log.txt"


PROMOTED = "promoted"
"""In a manifest's metadata, of an output that is to be a version of its name only if this is true."""


class ArtifactInput(Lenient):
    """The artifact of a reference, found when the job was submitted or when the job that makes it ended."""

    uri: str
    sha256: str = ""
    artifact: str | None = None
    name: str | None = None
    version: int | None = None


class UrlInput(Lenient):
    """The content of a URL when it was last checked.

    ``sha256`` is the hash of names, sizes and versions, as far as the server reports them.
    """

    url: str
    sha256: str = ""
    bytes: int = 0
    files: int | None = None


Input = ArtifactInput | UrlInput


def dump_inputs(inputs: Mapping[str, Input]) -> dict[str, Any]:
    """As JSON, for a report."""
    return {name: known.model_dump(mode="json", exclude_unset=True) for name, known in inputs.items()}


class Output(Lenient):
    """A published folder."""

    kind: str
    uri: str
    sha256: str
    bytes: int


class EndpointRules(Lenient):
    """Which endpoints of language models a job may call.

    ``allowed``: ``URL`` or ``URL=VARIABLE``, whatever the address; the variable's key may be sent there.
    ``private``: other endpoints whose address is not public. ``any_key``: whether any variable's value may be
    sent anywhere. The defaults are those of a command that somebody runs on his own machine.
    """

    allowed: list[str] = Field(default_factory=list)
    private: Literal["none", "loopback", "all"] = "all"
    any_key: bool = True


class RunRequest(Lenient):
    """Everything that the process needs; it reads no settings, environment or database."""

    job_id: str
    attempt: int
    spec: dict[str, Any]
    spec_version: int = 1  # of requests that do not say
    inputs: dict[str, Input] = Field(default_factory=dict)  # by reference
    artifact_url: str | None = None  # None: outputs stay in the folder (`reason run`)
    checkpoints: Path
    cache: Path
    gpus: list[str] = Field(default_factory=list)  # CUDA device ids; empty: the CPU
    processes: int = 1  # that share the work, one a GPU
    offline: bool = False
    trust_remote_code: bool = False
    endpoints: EndpointRules = Field(default_factory=EndpointRules)
    lease_seconds: float | None = (
        None  # without a heartbeat for so long the process ends; None: no supervisor
    )


class EndReasonRecord(Lenient):
    code: str
    message: str


class RunResult(Lenient):
    """The result of an attempt, which its process writes last."""

    state: str
    end_reason: EndReasonRecord
    outputs: dict[str, Output] = Field(default_factory=dict)
    metrics: dict[str, Any] = Field(default_factory=dict)
    incomplete: bool = False  # the same job may make more: another stage must not take this result
