"""Dependencies of the routes, as types of parameters."""

from typing import Annotated, cast

from fastapi import Depends, Path, Query, Request
from fastapi.openapi.models import HTTPBearer as BearerModel
from fastapi.security.base import SecurityBase
from pydantic import Field

from api.auth import Principal, Scope
from core.artifacts import Library
from core.queue.wakeups import Queue
from core.settings import Settings
from core.spec.parts.forms import (
    ARTIFACT_ID,
    JOB_ID,
    KEPT,
    PIPELINE_ID,
    PLAIN,
    ArtifactId,
    JobId,
    PipelineId,
)
from core.store import Store
from core.store.schema.tables import Artifact, Job, Pipeline


def _store(request: Request) -> Store:
    return cast(Store, request.app.state.store)


def _settings(request: Request) -> Settings:
    return cast(Settings, request.app.state.settings)


def _queue(request: Request) -> Queue:
    return cast(Queue, request.app.state.queue)


def _library(request: Request) -> Library:
    return cast(Library, request.app.state.library)


class Key(SecurityBase):
    """The scope that a route needs, declared by the type of one of its parameters.

    `api.routing.Route` checks it before the body is read and leaves the caller in the request's state.
    ``unless`` names a setting that opens the route to everybody.
    """

    def __init__(self, scope: Scope, unless: str | None = None) -> None:
        self.scope, self.unless = scope, unless
        self.model = BearerModel(description="An API key, created with `reason keys create NAME`.")
        self.scheme_name = "ApiKey"

    def __call__(self, request: Request) -> Principal | None:
        return cast(Principal | None, request.state.principal)


StoreDep = Annotated[Store, Depends(_store)]
SettingsDep = Annotated[Settings, Depends(_settings)]
QueueDep = Annotated[Queue, Depends(_queue)]
LibraryDep = Annotated[Library, Depends(_library)]
Reader = Annotated[Principal, Depends(Key("read"))]
Submitter = Annotated[Principal, Depends(Key("submit"))]
Admin = Annotated[Principal, Depends(Key("admin"))]
MetricsReader = Annotated[Principal | None, Depends(Key("read", unless="open_metrics"))]


def _visible_job(job_id: Annotated[JobId, Path()], store: StoreDep, reader: Reader) -> Job:
    return store.jobs.get(job_id, reader.access)


def _visible_pipeline(
    pipeline_id: Annotated[PipelineId, Path()], store: StoreDep, reader: Reader
) -> Pipeline:
    return store.pipelines.get(pipeline_id, reader.access)


def _visible_artifact(
    artifact_id: Annotated[ArtifactId, Path()], store: StoreDep, reader: Reader
) -> Artifact:
    return store.artifacts.get(artifact_id, reader.access)


_Kept = Path(pattern=KEPT, description="Id, NAME (the newest version) or NAME@VERSION.")


def _visible_dataset(dataset: Annotated[str, _Kept], store: StoreDep, reader: Reader) -> Artifact:
    target, _, version = dataset.partition("@")
    return store.artifacts.find("dataset", target, version or None, reader.access)


def _visible_model(model: Annotated[str, _Kept], store: StoreDep, reader: Reader) -> Artifact:
    target, _, version = model.partition("@")
    return store.artifacts.find("model", target, version or None, reader.access)


VisibleJob = Annotated[Job, Depends(_visible_job)]
"""The job of the path, if the caller may see it; else 404."""
VisiblePipeline = Annotated[Pipeline, Depends(_visible_pipeline)]
VisibleArtifact = Annotated[Artifact, Depends(_visible_artifact)]
VisibleDataset = Annotated[Artifact, Depends(_visible_dataset)]
VisibleModel = Annotated[Artifact, Depends(_visible_model)]

MAX_NUMBER = 2**31 - 1
"""The largest sequence number that a row can have."""

Limit = Annotated[int, Query(ge=1, le=500, description="Items per page.")]
PlainText = Annotated[str, Query(pattern=PLAIN, max_length=300)]


# The store checks the form of a cursor, and answers 400; the schema shows it.
_Cursor = Query(description="The next_cursor of the previous page.")
JobCursor = Annotated[
    Annotated[str, Field(max_length=300, json_schema_extra={"pattern": JOB_ID})] | None, _Cursor
]
PipelineCursor = Annotated[
    Annotated[str, Field(max_length=300, json_schema_extra={"pattern": PIPELINE_ID})] | None, _Cursor
]
ArtifactCursor = Annotated[
    Annotated[str, Field(max_length=300, json_schema_extra={"pattern": ARTIFACT_ID})] | None, _Cursor
]
