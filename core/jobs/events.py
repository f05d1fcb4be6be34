"""Events of a job: lines from its process, rows in the database, messages on the stream.

Each event type has one model for its ``data``, which writers, store, API and client share.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, ClassVar, Self, get_args

from pydantic import Field, model_validator

from core.jobs.state import JobState
from core.spec.parts.base import Lenient


class EventType(StrEnum):
    STATE = "state"
    PHASE = "phase"
    PROGRESS = "progress"
    METRIC = "metric"
    MEMORY = "memory"
    NOTICE = "notice"
    CHECKPOINT = "checkpoint"
    OUTPUT = "output"


class EventData(Lenient):
    """The data of an event. Each subclass belongs to one event type."""

    type: ClassVar[EventType]


class StateChange(EventData):
    """The job has changed its state. Only the store writes it."""

    type = EventType.STATE
    state: JobState
    attempt: int = 0
    reason: str | None = Field(None, description="Code of the reason, if the attempt has ended.")
    message: str | None = None
    reused_from: str | None = Field(None, description="Id of the job whose outputs were taken.")


class PhaseChange(EventData):
    """The job has entered another phase."""

    type = EventType.PHASE
    phase: str = Field(description="loading, preparing, training, evaluating, publishing, ...")


class Progress(EventData):
    """Progress of a job."""

    type = EventType.PROGRESS
    fraction: float = Field(
        0.0,
        description="Finished share of the whole job, from 0 to 1; includes evaluation if its size is known.",
    )
    step: int = 0
    total_steps: int | None = None
    epoch: float | None = None
    eta_seconds: float | None = None


class Metrics(EventData):
    """Measured values at a step. A value that is not finite is null."""

    type = EventType.METRIC
    step: int
    values: dict[str, float | None]


class Memory(EventData):
    """Memory in use, in bytes, when last measured. GPU fields are null on a CPU."""

    type = EventType.MEMORY
    rss_bytes: int | None = None
    gpu_bytes: int | None = None
    gpu_peak_bytes: int | None = None


class Notice(EventData):
    """A message for the user."""

    type = EventType.NOTICE
    level: str = Field("info", description="info, warning or error")
    message: str


class CheckpointSaved(EventData):
    """A checkpoint is complete: the job can resume from it."""

    type = EventType.CHECKPOINT
    step: int
    bytes: int = 0
    seconds: float = 0.0


class OutputPublished(EventData):
    """An output has been published in the artifact storage."""

    type = EventType.OUTPUT
    name: str
    kind: str
    uri: str
    sha256: str
    bytes: int


AnyData = StateChange | PhaseChange | Progress | Metrics | Memory | Notice | CheckpointSaved | OutputPublished

_MODELS: dict[EventType, type[EventData]] = {model.type: model for model in get_args(AnyData)}


class Event(Lenient):
    """One line of ``events.jsonl``, and one row of the events table."""

    type: EventType
    at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    data: AnyData

    @classmethod
    def of(cls, data: EventData) -> Self:
        """Return an event with the current time."""
        return cls.model_validate({"type": data.type, "data": data})

    @model_validator(mode="before")
    @classmethod
    def _read_by_type(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and isinstance(values.get("data"), Mapping):
            model = _MODELS[EventType(values.get("type", ""))]
            return {**values, "data": model.model_validate(values["data"])}
        return values
