"""What the API answers, as the API writes it and the client reads it."""

from datetime import datetime
from typing import Any, Generic, TypeVar

from pydantic import Field

from core.jobs.events import Event, Memory, Progress
from core.jobs.hosts import Gpu
from core.jobs.protocol import Input
from core.jobs.state import JobState
from core.spec.parts.base import Lenient

Item = TypeVar("Item")


class Page(Lenient, Generic[Item]):
    """One page of a list. ``next_cursor`` asks for the next one; null at the end."""

    items: list[Item]
    next_cursor: str | None = None


class EndReasonView(Lenient):
    code: str
    message: str


class JobView(Lenient):
    """A job as `GET /jobs/{id}` shows it."""

    id: str
    kind: str
    name: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    state: JobState
    phase: str | None = None
    progress: Progress = Field(default_factory=Progress)
    latest: dict[str, float | None] = Field(
        default_factory=dict, description="The last value of every metric."
    )
    memory: Memory = Field(default_factory=Memory)
    attempt: int = Field(0, description="How often a worker has started it.")
    max_attempts: int = 3
    cancel_requested: bool = False
    pause_requested: bool = False
    queue_position: int | None = Field(None, description="0 is next. Null unless queued.")
    priority: int = 0
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    end_reason: EndReasonView | None = None
    spec: dict[str, Any] = Field(default_factory=dict)
    inputs: dict[str, Input] = Field(
        default_factory=dict, description="What each reference of the spec meant."
    )
    outputs: dict[str, str] = Field(default_factory=dict, description="Name -> reference.")
    worker: str | None = None
    links: dict[str, str] = Field(default_factory=dict)


class EventView(Event):
    """An event with its number: 1, 2, 3, ... within the job, without gaps."""

    seq: int
    attempt: int


class MetricPoint(Lenient):
    step: int
    value: float | None = Field(description="Null where the number was not finite.")
    at: datetime


class MetricSeries(Lenient):
    name: str
    points: list[MetricPoint]
    total_points: int


class ArtifactView(Lenient):
    """A finished output. ``files`` is its manifest: path, bytes and sha256 of each.

    Lists of datasets leave ``files`` empty; ``file_count`` is the number of files in any case.
    """

    id: str
    job_id: str | None
    output: str
    kind: str
    name: str | None
    version: int | None
    sha256: str
    bytes: int
    created_at: datetime
    files: list[dict[str, Any]]
    file_count: int = 0
    metadata: dict[str, Any]
    links: dict[str, str] = Field(default_factory=dict)


class PreviewView(Lenient):
    """The first rows of a split of a dataset, long texts cut short."""

    split: str
    splits: list[str]
    items: list[dict[str, Any]]


class WorkerView(Lenient):
    id: str
    host: str
    slots: int
    running: int
    gpus: list[Gpu]
    memory_bytes: int
    state: str
    started_at: datetime
    heartbeat_at: datetime


class WaitingView(Lenient):
    """A queued job."""

    id: str
    kind: str
    name: str | None
    priority: int
    position: int = Field(description="0 is next.")
    starts_in_seconds: float | None = Field(
        description="Expected, from what runs and how long jobs of its kind took. Null: not known."
    )


class QueueView(Lenient):
    """How many jobs are in each state, and the caller's queued ones in the order in which they begin."""

    waiting: int = 0
    queued: int = 0
    running: int = 0
    paused: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    jobs: list[WaitingView] = Field(default_factory=list)


class FitView(Lenient):
    """Whether a worker has the memory that a job needs at least."""

    worker: str
    host: str
    memory_bytes: int = Field(description="Of its largest GPU, or of the host where the job uses none.")
    fits: bool


class EstimateView(Lenient):
    """What a job would take. Null: not known; ``notes`` says why."""

    device: str
    precision: str
    rows: int | None = None
    lengths: dict[str, Any] | None = None
    steps: int | None = None
    seconds: float | None = Field(None, description="Of the training steps, from earlier jobs' throughput.")
    cached: bool | None = Field(None, description="Whether the loss would go micro-batch by micro-batch.")
    memory: dict[str, int] | None = Field(None, description="Bytes at the peak by part, and their total.")
    least_memory_bytes: int | None = Field(None, description="Below which the job cannot run at all.")
    workers: list[FitView] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)


class KeyView(Lenient):
    id: str
    name: str
    scopes: list[str]
    created_at: datetime
    revoked_at: datetime | None = None


class NewKeyView(KeyView):
    """Shown once: only its hash is kept."""

    key: str
