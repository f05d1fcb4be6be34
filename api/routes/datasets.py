"""Datasets: sent, listed, looked into."""

import json
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from api.deps import (
    ArtifactCursor,
    LibraryDep,
    Limit,
    PlainText,
    Reader,
    SettingsDep,
    StoreDep,
    Submitter,
    VisibleDataset,
)
from api.disconnects import while_connected
from api.routing import Route
from api.uploads import BINARY, keep, options_of, receive
from api.views import artifact_views, known_artifact_view
from core.data.rows.statistics import PREVIEW, PREVIEW_ROWS
from core.errors import NotFound
from core.jobs.views import ArtifactView, Page, PreviewView
from core.spec.parts.forms import NAME, PLAIN, ROLE_AND_COLUMN
from core.store.schema.tables import Artifact

router = APIRouter(route_class=Route, prefix="/datasets", tags=["datasets"])


@router.post(
    "",
    status_code=201,
    summary="Upload a dataset",
    responses={
        200: {"model": ArtifactView, "description": "The same content under the same name already exists."},
        413: {
            "description": "Larger than REASON_MAX_UPLOAD_BYTES, or unpacks to more than 20 times as much."
        },
        422: {"description": "Rows that cannot be used, by line; or content that is not a dataset."},
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
    max_reject_share: Annotated[
        float, Query(ge=0, le=1, description="Largest share of rows that may be unreadable.")
    ] = 0.0,
    encoding: Annotated[
        str | None,
        Query(
            pattern=PLAIN,
            max_length=40,
            description="Encoding of text files that are not UTF-8, such as cp1252.",
        ),
    ] = None,
    columns: Annotated[
        list[Annotated[str, Field(pattern=ROLE_AND_COLUMN, max_length=200)]],
        Query(
            max_length=100,
            description="role:NAME for each column whose name is not known (query:title, positive:body), or "
            "role:NUMBER, from 1, for a file without a header. Repeat it for several columns of "
            "negatives.",
        ),
    ] = [],  # noqa: B006 - FastAPI copies it
) -> ArtifactView:
    """The body is the file: JSONL, JSON, CSV, TSV or Parquet (also .gz, .zst), or a tar or zip of a folder.

    The whole file is read before it is stored; the answer to unusable rows (422) names their lines.
    `encoding` and `columns` are stored with the dataset, and jobs that read it use them by default.
    A dataset of more than 200 files is stored as one `files.tar`. If the client closes the connection, the
    upload is dropped.
    """
    options = options_of(columns, encoding)
    async with receive(request, settings) as received:
        artifact, new = await while_connected(
            request,
            partial(
                keep,
                received,
                name,
                filename,
                max_reject_share,
                options,
                store,
                settings,
                library,
                principal.access,
            ),
            request.app.state.uploads,
        )
    if not new:
        response.status_code = 200
    response.headers["Location"] = f"/datasets/{artifact.id}"
    return known_artifact_view(artifact, store)


@router.get("", summary="Datasets, newest first")
def datasets(
    store: StoreDep, reader: Reader, cursor: ArtifactCursor = None, limit: Limit = 50
) -> Page[ArtifactView]:
    """Uploaded datasets, and outputs of prepare and mine jobs.

    In the list `files` is empty and `metadata.splits` has at most 100 splits. GET /datasets/{id} has all.
    """
    rows, following = store.artifacts.page("dataset", access=reader.access, cursor=cursor, limit=limit)
    return Page(items=artifact_views(rows, store, listed=True), next_cursor=following)


@router.get("/{dataset}", summary="A dataset: splits, statistics, lineage")
def get_dataset(artifact: VisibleDataset, store: StoreDep) -> ArtifactView:
    """By id, or as NAME (the newest version), NAME@VERSION or NAME@current (the promoted one)."""
    return known_artifact_view(artifact, store)


def has_preview(artifact: Artifact) -> bool:
    """Whether first rows were kept beside the files: of datasets, and not of old ones."""
    return any(entry["path"] == PREVIEW for entry in artifact.manifest["files"])


@router.get("/{dataset}/preview", summary="First rows of a dataset")
def preview(
    artifact: VisibleDataset,
    library: LibraryDep,
    split: PlainText | None = None,
    limit: Annotated[int, Query(ge=1, le=PREVIEW_ROWS)] = PREVIEW_ROWS,
) -> PreviewView:
    """Long texts are shortened. Without `split` the first split is shown."""
    if not has_preview(artifact):
        raise NotFound(f"Dataset {artifact.id} has no preview; its files are at /artifacts/{artifact.id}")
    with library.open(artifact.uri, PREVIEW) as file:
        shown: dict[str, list[dict[str, Any]]] = json.load(file)
    chosen = split or next(iter(shown), "")
    if chosen not in shown and chosen in artifact.manifest.get("metadata", {}).get("splits", {}):
        raise NotFound(
            f"Split {chosen!r} of dataset {artifact.id} has no preview: only the first {len(shown)} splits "
            f"have one. The files are at /artifacts/{artifact.id}"
        )
    if chosen not in shown:
        raise NotFound(f"Dataset {artifact.id} has no split {chosen!r}; it has {', '.join(shown) or 'none'}")
    return PreviewView(split=chosen, splits=list(shown), items=shown[chosen][:limit])
