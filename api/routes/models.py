"""Models: sent, listed, looked up."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from api.deps import (
    ArtifactCursor,
    LibraryDep,
    Limit,
    Reader,
    SettingsDep,
    StoreDep,
    Submitter,
    VisibleModel,
)
from api.disconnects import while_connected
from api.model_uploads import keep_model
from api.routing import Route
from api.uploads import BINARY, receive
from api.views import artifact_views, known_artifact_view
from core.jobs.views import ArtifactView, Page
from core.spec.parts.forms import NAME, PLAIN

router = APIRouter(route_class=Route, prefix="/models", tags=["models"])


@router.post(
    "",
    status_code=201,
    summary="Upload a model",
    responses={
        200: {"model": ArtifactView, "description": "The same content under the same name already exists."},
        413: {
            "description": "Larger than REASON_MAX_UPLOAD_BYTES, or unpacks to more than 20 times as much."
        },
        422: {
            "description": "Not an archive, or a folder that no job could load; the message names the file."
        },
    },
    openapi_extra={"requestBody": {"content": {"application/octet-stream": BINARY}, "required": True}},
)
async def upload(
    request: Request,
    response: Response,
    store: StoreDep,
    settings: SettingsDep,
    library: LibraryDep,
    principal: Submitter,
    name: Annotated[str, Query(pattern=NAME, max_length=200)],
    filename: Annotated[
        str | None,
        Query(
            pattern=PLAIN,
            max_length=300,
            description="File name of the body. Its extension names the format; without it the format is "
            "detected.",
        ),
    ] = None,
) -> ArtifactView:
    """The body is a tar or zip of a model's folder, as sentence-transformers, PyLate or transformers save it,
    with weights in safetensors. Jobs refer to it as `model:NAME` or `model:NAME@VERSION`.

    Before the model is stored, the service checks that all files are present and complete, and that the
    model needs no Python code of its own. The job that loads the model checks that the weights fit the
    configuration.
    """
    async with receive(request, settings) as received:
        artifact, new = await while_connected(
            request,
            partial(keep_model, received, name, filename, store, settings, library, principal.access),
            request.app.state.uploads,
        )
    if not new:
        response.status_code = 200
    response.headers["Location"] = f"/models/{artifact.id}"
    return known_artifact_view(artifact, store)


@router.get("", summary="Models, newest first")
def models(
    store: StoreDep, reader: Reader, cursor: ArtifactCursor = None, limit: Limit = 50
) -> Page[ArtifactView]:
    """Uploaded models, and outputs of train jobs."""
    rows, following = store.artifacts.page("model", access=reader.access, cursor=cursor, limit=limit)
    return Page(items=artifact_views(rows, store), next_cursor=following)


@router.get("/{model}", summary="A model: files, scores, lineage")
def get_model(artifact: VisibleModel, store: StoreDep) -> ArtifactView:
    """By id, or as NAME (the newest version), NAME@VERSION or NAME@current (the promoted one)."""
    return known_artifact_view(artifact, store)
