"""The store: one object that holds the part for each noun."""

from dataclasses import dataclass

from core.settings import Settings
from core.store.artifacts import ArtifactStore
from core.store.attempts.leases import LeaseStore, RetryPolicy
from core.store.attempts.progress import ProgressStore
from core.store.attempts.reuse import ReuseStore
from core.store.fleet import KeyStore, WorkerStore
from core.store.jobs import JobStore
from core.store.lineage import LineageStore
from core.store.pipelines.pipelines import PipelineStore
from core.store.pipelines.schedules import ScheduleStore
from core.store.retention.deleting import RetentionStore
from core.store.retention.files import FolderStore
from core.store.schema.database import Database, open_database
from core.store.sessions import SessionStore
from core.store.statistics import StatisticsStore
from core.store.waiting_line import WaitingLine
from core.store.webhooks import WebhookStore


@dataclass(frozen=True)
class Store:
    database: Database
    jobs: JobStore
    pipelines: PipelineStore
    schedules: ScheduleStore
    leases: LeaseStore
    progress: ProgressStore
    reuse: ReuseStore
    artifacts: ArtifactStore
    lineage: LineageStore
    retention: RetentionStore
    folders: FolderStore
    workers: WorkerStore
    keys: KeyStore
    sessions: SessionStore
    webhooks: WebhookStore
    statistics: StatisticsStore
    line: WaitingLine

    def close(self) -> None:
        self.database.engine.dispose()


def open_store(settings: Settings) -> Store:
    """The store that the settings name. Connects at the first use."""
    database = open_database(settings.database_url)
    jobs = JobStore(database)
    return Store(
        database=database,
        jobs=jobs,
        pipelines=PipelineStore(database, jobs),
        schedules=ScheduleStore(database),
        leases=LeaseStore(database, RetryPolicy(settings.retry_base_seconds, settings.retry_cap_seconds)),
        progress=ProgressStore(database, settings.max_log_bytes),
        reuse=ReuseStore(database),
        artifacts=ArtifactStore(database),
        lineage=LineageStore(database),
        retention=RetentionStore(database),
        folders=FolderStore(database),
        workers=WorkerStore(database),
        keys=KeyStore(database),
        sessions=SessionStore(database),
        webhooks=WebhookStore(database),
        statistics=StatisticsStore(database),
        line=WaitingLine(database),
    )
