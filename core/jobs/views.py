"""Models of the API's responses, shared by API and client."""

from datetime import datetime
from typing import Any, Generic, TypeVar

from pydantic import Field

from core.jobs.events import Event, Memory, Progress
from core.jobs.hosts import Gpu
from core.jobs.origin import Origin
from core.jobs.protocol import Input
from core.jobs.state import JobState
from core.spec.parts.base import Lenient
from core.spec.pipelines.recipe_facts import RecipeChoice, RecipeInputs

Item = TypeVar("Item")


class Page(Lenient, Generic[Item]):
    """One page of a list. Pass ``next_cursor`` as ``cursor`` to get the next page; null on the last page."""

    items: list[Item]
    next_cursor: str | None = None


class EndReasonView(Lenient):
    code: str
    message: str


class JobView(Lenient):
    """A job."""

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
    attempt: int = Field(0, description="Number of attempts so far.")
    max_attempts: int = 3
    cancel_requested: bool = False
    pause_requested: bool = False
    queue_position: int | None = Field(
        None, description="Number of queued jobs before this one. Null unless the job is queued."
    )
    priority: int = 0
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    end_reason: EndReasonView | None = None
    spec: dict[str, Any] = Field(default_factory=dict)
    inputs: dict[str, Input] = Field(
        default_factory=dict,
        description="The artifact or URL content that each reference of the spec named at submission.",
    )
    outputs: dict[str, str] = Field(
        default_factory=dict, description="Reference of each output, by its name."
    )
    worker: str | None = None
    pipeline: str | None = Field(None, description="Id of the pipeline that the job belongs to.")
    stage: str | None = Field(None, description="Name of its stage there.")
    reused_from: str | None = Field(
        None, description="Id of the job whose outputs were taken instead of running this one."
    )
    origin: Origin | None = Field(
        None, description="What the result depends on, beside the spec. Null before the job starts."
    )
    links: dict[str, str] = Field(default_factory=dict)


class EventView(Event):
    """An event. ``seq`` numbers the events of a job: 1, 2, 3, ..., without gaps."""

    seq: int
    attempt: int


class PipelineEventView(EventView):
    """An event of a job of a pipeline. ``seq`` numbers the events of the pipeline."""

    job: str
    stage: str


class StageView(Lenient):
    """A stage of a pipeline."""

    job: str = Field(description="Id of its job.")
    kind: str
    state: JobState
    phase: str | None = None
    progress: Progress = Field(default_factory=Progress)
    needs: list[str] = Field(
        default_factory=list, description="Stages that must succeed before this one starts."
    )
    reused_from: str | None = Field(
        None, description="Id of the job whose outputs were taken instead of running this stage."
    )
    end_reason: EndReasonView | None = None


class PipelineProgress(Lenient):
    """How many stages have succeeded, and the share of all stages that is done."""

    succeeded: int
    stages: int
    fraction: float
    eta_seconds: float | None = Field(
        None,
        description="Estimated time until the pipeline ends, from the running stages and the durations of "
        "earlier jobs. Null: unknown, or in a list.",
    )


class HitView(Lenient):
    """A text that a search has found."""

    id: str
    score: float
    text: str | None = Field(description="Its beginning. Null: the embeddings have no texts.")


class SearchView(Lenient):
    """What a search has found, best first."""

    embeddings: str
    model: str = Field(description="The model that made the embeddings.")
    hits: list[HitView]


class VerdictView(Lenient):
    """What an evaluation stage found of a model, compared with its baseline."""

    stage: str
    model: str
    dataset: str
    metric: str
    outcome: str = Field(description="better, worse or no difference")
    verdict: str = Field(description="A sentence with the numbers.")


class RecipeListView(Lenient):
    """A recipe."""

    name: str
    description: str
    base_model: str = Field(description="Used when inputs has none.")


class RecipeView(Lenient):
    """A recipe with its inputs: stages that can be read, changed and posted as a pipeline."""

    recipe: str
    inputs: RecipeInputs
    stages: dict[str, dict[str, Any]]
    choices: list[RecipeChoice] = Field(description="What was chosen from the data, and why.")
    estimates: dict[str, "EstimateView"] = Field(
        default_factory=dict, description="Time and memory of each stage that a model takes part in."
    )
    seconds: float | None = Field(None, description="Sum of the estimated times. Null: one is unknown.")


class PipelineView(Lenient):
    """A pipeline: jobs that were created together."""

    id: str
    name: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    state: JobState
    stages: dict[str, StageView]
    progress: PipelineProgress
    outputs: dict[str, str] = Field(
        default_factory=dict, description="Reference of each output, by STAGE/OUTPUT."
    )
    verdicts: list[VerdictView] = Field(
        default_factory=list, description="Of the evaluation stages that have ended. Empty in lists."
    )
    recipe: str | None = Field(None, description="The recipe that made the stages.")
    choices: list[RecipeChoice] = Field(
        default_factory=list, description="What the recipe has chosen from the data, and why."
    )
    created_at: datetime
    finished_at: datetime | None = None
    end_reason: EndReasonView | None = None
    links: dict[str, str] = Field(default_factory=dict)


class MetricPoint(Lenient):
    step: int
    value: float | None = Field(description="Null if the value was not finite.")
    at: datetime


class MetricSeries(Lenient):
    name: str
    points: list[MetricPoint]
    total_points: int


class ArtifactView(Lenient):
    """An output of a job, or an upload. ``files`` has path, bytes and sha256 of each file.

    In lists of datasets ``files`` is empty; ``file_count`` is always the number of files.
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
    pinned_at: datetime | None = None
    current: bool = Field(False, description="Whether it is NAME@current, the version that was promoted.")
    files: list[dict[str, Any]]
    file_count: int = 0
    metadata: dict[str, Any]
    links: dict[str, str] = Field(default_factory=dict)


class CheckpointView(Lenient):
    """A checkpoint of a training that can be used as a model, also while the job runs."""

    step: int
    reference: str = Field(description="How other jobs name it: job:ID/checkpoint@STEP.")
    metrics: dict[str, float | None] = Field(
        description="What was measured at this step: metric, or DATASET/metric -> value."
    )
    best: bool = Field(description="The best of these, by the metric of evaluation.early_stopping.")
    last: bool
    artifact: str
    bytes: int
    created_at: datetime


class PreviewView(Lenient):
    """The first rows of a split of a dataset. Long texts are shortened."""

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


class WhyReason(Lenient):
    """A reason why a job does not run; ``code`` is for programs."""

    code: str
    message: str


class WhyView(Lenient):
    """Why a job is not running. Without reasons it is."""

    reasons: list[WhyReason] = Field(default_factory=list)
    position: int | None = Field(
        None, description="Number of queued jobs before it. Null unless the job is queued."
    )
    eta_seconds: float | None = Field(
        None, description="Estimated time until it starts, from the running jobs and earlier durations."
    )


class WaitingView(Lenient):
    """A queued job."""

    id: str
    kind: str
    name: str | None
    priority: int
    position: int = Field(description="Number of queued jobs before this one.")
    starts_in_seconds: float | None = Field(
        description="Estimate, from the running jobs and the durations of earlier jobs of the same kind. "
        "Null: unknown."
    )


class QueueView(Lenient):
    """Number of jobs in each state, and the caller's queued jobs in the order of their start."""

    waiting: int = 0
    queued: int = 0
    running: int = 0
    paused: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    jobs: list[WaitingView] = Field(default_factory=list)


class FitView(Lenient):
    """Whether a worker has the minimum memory of a job."""

    worker: str
    host: str
    memory_bytes: int = Field(
        description="Memory of the worker's largest GPU, or of its host if the job uses no GPU."
    )
    fits: bool


class EstimateView(Lenient):
    """Estimated resources of a job. Null: unknown; ``notes`` has the reason."""

    device: str
    precision: str
    rows: int | None = None
    lengths: dict[str, Any] | None = None
    steps: int | None = None
    seconds: float | None = Field(
        None, description="Estimated duration, from the throughput of earlier trainings."
    )
    cached: bool | None = Field(
        None, description="Whether the loss would be computed in micro-batches (gradient caching)."
    )
    memory: dict[str, int] | None = Field(None, description="Peak memory in bytes by purpose, and the total.")
    least_memory_bytes: int | None = Field(
        None, description="Minimum memory in bytes: with less the job cannot run."
    )
    workers: list[FitView] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)


class WebhookView(Lenient):
    """A URL that is told of changes."""

    id: str
    url: str
    events: list[str]
    created_at: datetime
    failing_since: datetime | None = Field(None, description="Since then no delivery has succeeded.")
    disabled_at: datetime | None = None
    disabled_reason: str | None = None
    links: dict[str, str] = Field(default_factory=dict)


class NewWebhookView(WebhookView):
    """A new webhook. ``secret`` is shown only once."""

    secret: str


class DeliveryView(Lenient):
    """An event that a webhook is told of."""

    id: str = Field(description="The header webhook-id, the same in every try.")
    type: str
    subject: str = Field(description="Id of the job or pipeline.")
    state: str = Field(description="waiting, delivered or failed")
    attempts: int
    status: int | None = Field(None, description="HTTP status of the last answer.")
    error: str | None = None
    next_attempt_at: datetime | None = None
    created_at: datetime
    ended_at: datetime | None = None


class ScheduleView(Lenient):
    """A pipeline that is submitted again and again."""

    id: str
    name: str | None
    cron: str
    timezone: str
    next_at: datetime
    last_at: datetime | None = None
    last_pipeline: str | None = Field(None, description="Id of the last pipeline that was submitted.")
    last_problem: str | None = Field(
        None, description="Why the last time no pipeline was submitted. Null: one was."
    )
    pipeline: dict[str, Any] = Field(description="What is submitted.")
    created_at: datetime
    links: dict[str, str] = Field(default_factory=dict)


class KeyView(Lenient):
    id: str
    name: str
    scopes: list[str]
    created_at: datetime
    revoked_at: datetime | None = None


class NewKeyView(KeyView):
    """A new API key. ``key`` is shown only once: the service stores only its hash."""

    key: str
