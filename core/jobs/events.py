"""What a job tells while it lives: lines from its process, rows in the database, events on the stream.

Each type of event has one model for its ``data``: for those who write, store, show and read it alike.
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
    """What happened. A subclass names its event's type."""

    type: ClassVar[EventType]


class StateChange(EventData):
    """The job is in another state. The store alone writes it."""

    type = EventType.STATE
    state: JobState
    attempt: int = 0
    reason: str | None = Field(None, description="Why: of an end, and of a return to the queue.")
    message: str | None = None


class PhaseChange(EventData):
    """The job does something else now."""

    type = EventType.PHASE
    phase: str = Field(description="Loading, preparing, training, evaluating, publishing, ...")


class Progress(EventData):
    """How far a job is."""

    type = EventType.PROGRESS
    fraction: float = Field(0.0, description="Of the whole job, evaluation included where it is known.")
    step: int = 0
    total_steps: int | None = None
    epoch: float | None = None
    eta_seconds: float | None = None


class Metrics(EventData):
    """Measured numbers. A number that is not finite is null."""

    type = EventType.METRIC
    step: int
    values: dict[str, float | None]


class Memory(EventData):
    """Bytes, as last seen. GPU fields are null on a CPU."""

    type = EventType.MEMORY
    rss_bytes: int | None = None
    gpu_bytes: int | None = None
    gpu_peak_bytes: int | None = None


class Notice(EventData):
    """A sentence for the user."""

    type = EventType.NOTICE
    level: str = Field("info", description="Info, warning or error.")
    message: str


class CheckpointSaved(EventData):
    """A checkpoint is whole: the job can go on from it."""

    type = EventType.CHECKPOINT
    step: int
    bytes: int = 0
    seconds: float = 0.0


class OutputPublished(EventData):
    """An output is in the artifact storage."""

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
    data: StateChange | PhaseChange | Progress | Metrics | Memory | Notice | CheckpointSaved | OutputPublished

    @classmethod
    def of(cls, data: EventData) -> Self:
        """It happens now."""
        return cls.model_validate({"type": data.type, "data": data})

    @model_validator(mode="before")
    @classmethod
    def _read_by_type(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and isinstance(values.get("data"), Mapping):
            model = _MODELS[EventType(values.get("type", ""))]
            return {**values, "data": model.model_validate(values["data"])}
        return values
