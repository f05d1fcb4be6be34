"""Every table. `migrations/` follows; a test holds the two equal on both databases."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Boolean, Float, ForeignKey, Index, Integer, MetaData, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from core.jobs.events import Memory, Progress
from core.jobs.hosts import Gpu
from core.jobs.origin import Origin
from core.jobs.protocol import Input
from core.store.schema.database import TypedJson, UtcTime


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's own protocol
        datetime: UtcTime(),
        dict[str, Any]: JSON(),
        list[Any]: JSON(),
        Progress: TypedJson(Progress),
        Memory: TypedJson(Memory),
        dict[str, Input]: TypedJson(dict[str, Input]),
        list[Gpu]: TypedJson(list[Gpu]),
        Origin: TypedJson(Origin | None),
        str: String(255),
    }


class Job(Base):
    """A job, from its spec to its end. The lease columns say who may write to it while it runs."""

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    name: Mapped[str | None]
    labels: Mapped[dict[str, Any]] = mapped_column(default=dict)
    spec: Mapped[dict[str, Any]]
    spec_version: Mapped[int]
    owner: Mapped[str | None]  # id of the key that submitted it

    state: Mapped[str] = mapped_column(String(16))
    priority: Mapped[int] = mapped_column(default=0)
    rank: Mapped[int] = mapped_column(default=0)  # -priority: one ascending index then serves the claim
    wants_gpu: Mapped[str] = mapped_column(String(8), default="auto")  # auto | no | yes
    gpu_count: Mapped[int] = mapped_column(default=1, server_default="1")  # if it wants any
    gpu_memory_bytes: Mapped[int | None] = mapped_column(BigInteger)  # of each
    not_before: Mapped[datetime]
    attempt: Mapped[int] = mapped_column(default=0)
    failures: Mapped[int] = mapped_column(default=0)  # attempts that count against max_attempts
    max_attempts: Mapped[int] = mapped_column(default=3)

    lease_token: Mapped[str | None] = mapped_column(String(64))
    lease_expires_at: Mapped[datetime | None]
    worker: Mapped[str | None]
    cancel_requested: Mapped[bool] = mapped_column(Boolean, default=False)
    pause_requested: Mapped[bool] = mapped_column(Boolean, default=False)

    phase: Mapped[str | None]
    progress: Mapped[Progress] = mapped_column(default=Progress)
    latest: Mapped[dict[str, Any]] = mapped_column(default=dict)
    memory: Mapped[Memory] = mapped_column(default=Memory)
    inputs: Mapped[dict[str, Input]] = mapped_column(default=dict)
    outputs: Mapped[dict[str, Any]] = mapped_column(default=dict)
    end_code: Mapped[str | None] = mapped_column(String(64))
    end_message: Mapped[str | None] = mapped_column(Text)
    event_seq: Mapped[int] = mapped_column(default=0)  # number of the job's last event
    log_seq: Mapped[int] = mapped_column(default=0)

    pipeline_id: Mapped[str | None]  # no foreign key: see migration 0005
    stage: Mapped[str | None] = mapped_column(String(64))  # its name in the pipeline

    origin: Mapped[Origin | None]  # what its result depends on; known when it starts
    result_key: Mapped[str | None] = mapped_column(String(64))  # of spec and origin: `core.origin.key`
    result_scope: Mapped[str | None]  # only jobs of the same scope are equal; set where jobs are private
    reuse: Mapped[bool | None] = mapped_column(Boolean)  # whether it may take the outputs of an equal job
    reused_from: Mapped[str | None]  # id of the job whose outputs it has taken

    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    __table_args__ = (
        # What claiming reads, in its order.
        Index("ix_jobs_claim", "state", "rank", "id"),
        Index("ix_jobs_kind", "kind", "id"),
        Index("ix_jobs_name", "name", "id"),  # searched as a whole: rows are much larger
        Index("ix_jobs_owner", "owner", "id"),
        Index("ix_jobs_pipeline", "pipeline_id", "stage"),
        Index("ix_jobs_result", "result_key", "state"),
    )


class Pipeline(Base):
    """Jobs that were created together. ``state`` and ``finished_at`` follow from the jobs, and are written in
    the same transaction (`core.store.pipelines.pipelines`)."""

    __tablename__ = "pipelines"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    labels: Mapped[dict[str, Any]] = mapped_column(default=dict)
    owner: Mapped[str | None]  # id of the key that submitted it
    stages: Mapped[list[Any]]  # names, in the order in which they were posted
    recipe: Mapped[dict[str, Any] | None]  # its name, inputs and choices, where one made the stages
    state: Mapped[str] = mapped_column(String(16))
    event_seq: Mapped[int] = mapped_column(default=0)  # number of the pipeline's last event
    created_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]

    __table_args__ = (Index("ix_pipelines_owner", "owner", "id"),)


class PipelineEvent(Base):
    """The place of a job's event among those of its pipeline: 1, 2, 3, ..., in the order of commits."""

    __tablename__ = "pipeline_events"

    pipeline_id: Mapped[str] = mapped_column(ForeignKey("pipelines.id"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    job_seq: Mapped[int]


class GpuHold(Base):
    """A GPU that a running job has for itself: the primary key keeps other workers of its host away."""

    __tablename__ = "gpu_holds"

    uuid: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), index=True)


class ResultHold(Base):
    """A result that a running job is making: the primary key keeps equal jobs from making it as well."""

    __tablename__ = "result_holds"

    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), index=True)


class IdempotencyKey(Base):
    """A promise that the same request makes one job, held by the primary key."""

    __tablename__ = "idempotency_keys"

    owner: Mapped[str] = mapped_column(primary_key=True)  # "" without a key: NULLs would not collide
    key: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    request_sha256: Mapped[str] = mapped_column(String(64))


class Dependency(Base):
    __tablename__ = "dependencies"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    depends_on: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True, index=True)


class JobInput(Base):
    """An artifact that a job reads."""

    __tablename__ = "job_inputs"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    artifact_id: Mapped[str] = mapped_column(ForeignKey("artifacts.id"), primary_key=True, index=True)


class EventRow(Base):
    """``seq`` counts within the job and is handed out under the job's row lock: no gaps, no disorder."""

    __tablename__ = "events"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    attempt: Mapped[int]
    type: Mapped[str] = mapped_column(String(16))
    at: Mapped[datetime]
    data: Mapped[dict[str, Any]]


class Metric(Base):
    """One number of one step. A resumed attempt overwrites the steps it does again."""

    __tablename__ = "metrics"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(Integer, primary_key=True)
    value: Mapped[float | None] = mapped_column(Float)
    at: Mapped[datetime]


class LogChunk(Base):
    __tablename__ = "log_chunks"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    attempt: Mapped[int]
    content: Mapped[str] = mapped_column(Text)
    bytes: Mapped[int]


class Artifact(Base):
    """A finished output: where its content-addressed folder lies, and what made it."""

    __tablename__ = "artifacts"

    id: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"), index=True)
    owner: Mapped[str | None]  # id of the key that submitted the job, or sent the dataset
    output: Mapped[str]
    kind: Mapped[str] = mapped_column(String(32))
    name: Mapped[str | None]
    version: Mapped[int | None]
    uri: Mapped[str] = mapped_column(Text)
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    bytes: Mapped[int] = mapped_column(BigInteger)
    manifest: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    pinned_at: Mapped[datetime | None]  # until it is unpinned, nobody deletes it

    __table_args__ = (
        Index("ix_artifacts_uri", "uri"),
        Index("uq_artifacts_version", "kind", "name", "version", unique=True),
        Index("ix_artifacts_owner", "owner", "kind", "id"),
    )


class CurrentVersion(Base):
    """Which version of a name is ``NAME@current``: the last one that was promoted, of each key. To who sees
    those of several keys it is the last of them."""

    __tablename__ = "current_versions"

    kind: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(primary_key=True)  # of the artifact; "" without a key
    artifact_id: Mapped[str] = mapped_column(ForeignKey("artifacts.id"), index=True)
    promoted_at: Mapped[datetime]


class LastVersion(Base):
    """The highest version of a name that was deleted: its number is not used again."""

    __tablename__ = "last_versions"

    kind: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int]


class UnreferencedFolder(Base):
    """A folder of the artifact storage to which no row refers (`core.store.retention.files`)."""

    __tablename__ = "unreferenced_folders"

    uri: Mapped[str] = mapped_column(String(2048), primary_key=True)
    until: Mapped[datetime] = mapped_column(index=True)  # it is kept
    removing: Mapped[bool] = mapped_column(Boolean)
    token: Mapped[str] = mapped_column(String(32))  # of this row: a later one for the folder has another


class Schedule(Base):
    """A pipeline that is submitted again and again. ``sees_all`` as for webhooks."""

    __tablename__ = "schedules"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    owner: Mapped[str | None]  # id of the key that made it
    sees_all: Mapped[bool] = mapped_column(Boolean)
    cron: Mapped[str]
    timezone: Mapped[str] = mapped_column(String(64))
    request: Mapped[dict[str, Any]]  # the pipeline, as it was posted
    created_at: Mapped[datetime]
    next_at: Mapped[datetime] = mapped_column(index=True)
    last_at: Mapped[datetime | None]
    last_pipeline: Mapped[str | None]
    last_problem: Mapped[str | None] = mapped_column(Text)  # why no pipeline was submitted the last time

    __table_args__ = (Index("ix_schedules_owner", "owner", "id"),)


class Webhook(Base):
    """A URL that is told of changes. ``sees_all``: made by an administrator, or where there are no keys."""

    __tablename__ = "webhooks"

    id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str | None]  # id of the key that made it
    sees_all: Mapped[bool] = mapped_column(Boolean)
    url: Mapped[str] = mapped_column(Text)
    events: Mapped[list[Any]]
    secret: Mapped[str] = mapped_column(Text)  # must be known to sign with
    created_at: Mapped[datetime]
    failing_since: Mapped[datetime | None]
    disabled_at: Mapped[datetime | None]
    disabled_reason: Mapped[str | None] = mapped_column(Text)


class Delivery(Base):
    """One change that a webhook is told of. Its id is the same in every try."""

    __tablename__ = "webhook_deliveries"

    id: Mapped[str] = mapped_column(primary_key=True)
    webhook_id: Mapped[str]  # no foreign key: a job's change must not wait for a deletion, or fail by it
    subject: Mapped[str]  # id of the job or pipeline
    number: Mapped[int]  # rises with the changes of a subject
    owner: Mapped[str | None]  # of the subject
    type: Mapped[str] = mapped_column(String(64))
    body: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(16))  # waiting | delivered | failed
    attempts: Mapped[int]
    not_before: Mapped[datetime]
    status: Mapped[int | None]  # of the last answer
    error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]

    __table_args__ = (
        Index("ix_webhook_deliveries_due", "state", "not_before"),
        Index("ix_webhook_deliveries_order", "webhook_id", "subject", "number"),
    )


class Worker(Base):
    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(primary_key=True)
    host: Mapped[str]
    slots: Mapped[int]
    gpus: Mapped[list[Gpu]]
    memory_bytes: Mapped[int] = mapped_column(BigInteger)
    queues: Mapped[list[Any]]
    started_at: Mapped[datetime]
    heartbeat_at: Mapped[datetime]
    stopping: Mapped[bool] = mapped_column(default=False)


class ApiKey(Base):
    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    scopes: Mapped[list[Any]]
    created_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]


class BrowserSession(Base):
    """Somebody who has signed in with a key. ``sha256``: of the cookie's token."""

    __tablename__ = "browser_sessions"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    key_id: Mapped[str] = mapped_column(ForeignKey("api_keys.id"), index=True)
    ends_at: Mapped[datetime] = mapped_column(index=True)
