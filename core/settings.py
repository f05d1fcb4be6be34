"""One place for every setting. Environment variables with the prefix ``REASON_``, or a ``.env`` file."""

import os
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


def _split(value: object, separators: str) -> object:
    if not isinstance(value, str):
        return value
    for separator in separators[1:]:
        value = value.replace(separator, separators[0])
    return [part.strip() for part in value.split(separators[0]) if part.strip()]


_DAYS = ("run_folder_days", "checkpoint_days", "artifact_days", "cache_days")


class Settings(BaseSettings):
    """All settings. Defaults: the embedded service (SQLite, filesystem broker, local files)."""

    model_config = SettingsConfigDict(env_prefix="REASON_", env_file=".env", extra="ignore")

    data_dir: Path = Field(
        Path("data"), description="Folder for all local files: database, broker, artifacts, runs, caches."
    )
    database_url: str = Field("", description="SQLAlchemy URL. Default: SQLite in DATA_DIR.")
    broker_url: str = Field(
        "", description="Celery broker URL. Default: the filesystem transport in DATA_DIR."
    )
    artifact_url: str = Field(
        "", description="fsspec URL for finished artifacts and checkpoints. Default: DATA_DIR."
    )
    api_url: str = Field(
        "http://127.0.0.1:8000",
        description="URL of the API, for the client. Empty: `reason improve` starts a service of its own.",
    )
    api_key: SecretStr | None = Field(None, description="The key that the client sends.")
    allowed_paths: Annotated[list[Path], NoDecode] = Field(
        default_factory=list,
        description="Folders that `file:` references may read, separated by ':' or ','. Default: DATA_DIR.",
    )
    allowed_urls: Annotated[list[str], NoDecode] = Field(
        default_factory=list,
        description="URLs below which references may read, such as s3://bucket/data, separated by ','. "
        "Default: none.",
    )
    offline: bool = Field(
        False, description="Never contact a model hub; use only local files and the hub's local cache."
    )
    trust_remote_code: bool = Field(False, description="Load models that contain their own Python code.")
    lease_seconds: float = Field(
        15.0,
        ge=1,
        le=3600,
        description="Time after which a claim expires without renewal, and a job's process ends without a "
        "heartbeat.",
    )
    grace_seconds: float = Field(
        60.0,
        ge=0,
        description="Time that a stopped job has to save a checkpoint before SIGTERM, then SIGKILL.",
    )
    retry_base_seconds: float = Field(
        2.0, gt=0, description="Delay before the first retry; doubled each time, with jitter."
    )
    retry_cap_seconds: float = Field(300.0, gt=0, description="Longest delay before a retry.")
    slots: int = Field(
        0,
        ge=0,
        le=64,
        description="Number of jobs that a worker runs at once. 0: one per GPU; one without GPUs.",
    )
    queues: Annotated[list[str], NoDecode] = Field(
        default_factory=lambda: ["cpu", "gpu"], description="Wake-up queues that a worker listens to."
    )
    broker_polling_seconds: float = Field(
        0.1, gt=0, le=10, description="Interval for polling the filesystem broker. Other brokers push."
    )
    sweep_seconds: float = Field(
        1.0,
        gt=0,
        description="Interval at which a worker looks for expired leases and jobs with lost wake-ups.",
    )
    open_metrics: bool = Field(False, description="Serve /metrics without an API key.")
    private_jobs: bool = Field(
        False,
        description="A key without the scope admin sees only its own jobs, datasets and models.",
    )
    webhook_private_addresses: bool = Field(
        False, description="Let webhooks call addresses that are not of the public internet."
    )
    llm_endpoints: Annotated[list[str], NoDecode] = Field(
        default_factory=lambda: ["https://api.openai.com/v1=OPENAI_API_KEY"],
        description="Endpoints of language models that jobs may call whatever their address, separated by "
        "','. URL=VARIABLE also allows to send the key in that environment variable there.",
    )
    heartbeat_file: Path | None = Field(
        None,
        description="File that a worker touches after each heartbeat that the database has stored; for "
        "health checks.",
    )
    run_folder_days: float | None = Field(
        7.0,
        gt=0,
        description="Days after its end for which a failed or cancelled job's run folder is kept. null: "
        "forever.",
    )
    checkpoint_days: float | None = Field(
        14.0,
        gt=0,
        description="Days after a job's end for which its checkpoints are kept. null: forever.",
    )
    artifact_days: float | None = Field(
        None,
        gt=0,
        description="Days for which outputs of jobs are kept. Uploads, the newest version of a name and what "
        "is pinned or in use stay. null: forever.",
    )
    cache_days: float | None = Field(
        30.0,
        ge=1,
        description="Days after its last use for which an entry of a cache is kept. null: forever.",
    )
    max_body_bytes: int = Field(1_048_576, gt=0, description="Largest JSON body.")
    max_upload_bytes: int = Field(
        4_294_967_296,
        gt=0,
        description="Largest upload of a dataset or model; archives may unpack to 20 times as much.",
    )
    max_log_bytes: int = Field(
        4_194_304, gt=0, description="Largest stored log of a job; the oldest part is deleted first."
    )
    log_level: str = Field("INFO", description="DEBUG, INFO, WARNING or ERROR.")

    @field_validator("allowed_paths", mode="before")
    @classmethod
    def _paths(cls, value: object) -> object:
        return _split(value, os.pathsep + ",")

    @field_validator("llm_endpoints", mode="before")
    @classmethod
    def _endpoints(cls, value: object) -> object:
        return _split(value, ",")

    @field_validator(*_DAYS, mode="before")
    @classmethod
    def _forever(cls, value: object) -> object:
        return None if value in ("", "null") else value

    @field_validator("queues", "allowed_urls", mode="before")
    @classmethod
    def _names(cls, value: object) -> object:
        return _split(value, ",")

    @model_validator(mode="after")
    def _embedded_defaults(self) -> "Settings":
        self.data_dir = self.data_dir.absolute()
        if not self.database_url:
            self.database_url = f"sqlite:///{self.data_dir / 'reason.db'}"
        if not self.broker_url:
            self.broker_url = "filesystem://localhost//"
        if not self.artifact_url:
            self.artifact_url = (self.data_dir / "artifacts").as_uri()
        if not self.allowed_paths:
            self.allowed_paths = [self.data_dir]
        self.allowed_paths = [path.resolve() for path in self.allowed_paths]
        return self

    @property
    def runs_dir(self) -> Path:
        """The folder of the run folders: ``runs/<job>/attempt-<n>/``."""
        return self.data_dir / "runs"

    @property
    def client_key(self) -> str | None:
        """The key that the client sends, as text."""
        return self.api_key.get_secret_value() if self.api_key else None


def settings_problem(error: ValidationError) -> str:
    """What is wrong with which variables."""
    return "; ".join(
        f"REASON_{'.'.join(str(part) for part in item['loc']).upper()}: {item['msg']}"
        for item in error.errors()
    )
