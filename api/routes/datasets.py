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
from api.views import artifact_view
from core.data.rows.statistics import PREVIEW, PREVIEW_ROWS
from core.errors import NotFound
from core.jobs.views import ArtifactView, Page, PreviewView
from core.spec.parts.forms import NAME, PLAIN, ROLE_AND_COLUMN

router = APIRouter(route_class=Route, prefix="/datasets", tags=["datasets"])


@router.post(
    "",
    status_code=201,
    summary="Send a dataset",
    responses={
        200: {"model": ArtifactView, "description": "The same content under the same name is there already."},
        413: {"description": "Larger than MAX_UPLOAD_BYTES, packed or unpacked."},
        422: {"description": "Rows that cannot be used, by line; or content that is no dataset."},
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
            pattern=PLAIN, max_length=300, description="Its ending says what the body is; else its content."
        ),
    ] = None,
    max_reject_share: Annotated[
        float, Query(ge=0, le=1, description="Share of rows that may be unreadable.")
    ] = 0.0,
    encoding: Annotated[
        str | None,
        Query(pattern=PLAIN, max_length=40, description="Of text files that are not UTF-8: cp1252."),
    ] = None,
    columns: Annotated[
        list[Annotated[str, Field(pattern=ROLE_AND_COLUMN, max_length=200)]],
        Query(
            max_length=100,
            description="role:NAME for each column not known by its name (query:title, positive:body), "
            "or role:NUMBER, from 1, for a file without a header. Several negatives: several times.",
        ),
    ] = [],  # noqa: B006 - FastAPI copies it
) -> ArtifactView:
    """The body is the file: JSONL, JSON, CSV, TSV or Parquet (also .gz, .zst), or a tar or zip of a folder.

    It is read to its end before it is kept: rows that cannot be used are answered with their lines.
    `encoding` and `columns` are kept with the dataset: jobs that read it need not say them again.
    A dataset of more than 200 files is stored as one `files.tar`. The work ends when the client closes the
    connection.
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
    return artifact_view(artifact)


@router.get("", summary="Datasets, newest first")
def datasets(
    store: StoreDep, reader: Reader, cursor: ArtifactCursor = None, limit: Limit = 50
) -> Page[ArtifactView]:
    """Sent ones, and those that prepare and mine jobs have made.

    In a list `files` is empty, and `metadata.splits` has the first hundred: GET /datasets/{id} has all.
    """
    rows, following = store.artifacts.page("dataset", access=reader.access, cursor=cursor, limit=limit)
    return Page(items=[artifact_view(row, listed=True) for row in rows], next_cursor=following)


@router.get("/{dataset}", summary="A dataset: splits, statistics, lineage")
def get_dataset(artifact: VisibleDataset) -> ArtifactView:
    """By id, or as NAME or NAME@VERSION."""
    return artifact_view(artifact)


@router.get("/{dataset}/preview", summary="Its first rows")
def preview(
    artifact: VisibleDataset,
    library: LibraryDep,
    split: PlainText | None = None,
    limit: Annotated[int, Query(ge=1, le=PREVIEW_ROWS)] = PREVIEW_ROWS,
) -> PreviewView:
    """Long texts are cut short. Without `split`, of the first one."""
    if not any(entry["path"] == PREVIEW for entry in artifact.manifest["files"]):
        raise NotFound(
            f"Dataset {artifact.id} was made without a preview; its files are at /artifacts/{artifact.id}"
        )
    with library.open(artifact.uri, PREVIEW) as file:
        shown: dict[str, list[dict[str, Any]]] = json.load(file)
    chosen = split or next(iter(shown), "")
    if chosen not in shown and chosen in artifact.manifest.get("metadata", {}).get("splits", {}):
        raise NotFound(
            f"Dataset {artifact.id} has a split {chosen!r}, and a preview of its first {len(shown)} splits "
            f"only; its files are at /artifacts/{artifact.id}"
        )
    if chosen not in shown:
        raise NotFound(f"Dataset {artifact.id} has no split {chosen!r}; it has {', '.join(shown) or 'none'}")
    return PreviewView(split=chosen, splits=list(shown), items=shown[chosen][:limit])
