"""Finished outputs: manifests and files."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response

from api.deps import LibraryDep, Reader, StoreDep, Submitter, VisibleArtifact
from api.lineage import lineage_view
from api.ranges import FILE_RESPONSES, RANGE_HEADERS, serve
from api.routing import Route
from api.views import artifact_view, known_artifact_view
from core.data.io.packing import PACKED
from core.errors import NotFound
from core.jobs.lineage import LineageView
from core.jobs.views import ArtifactView
from core.spec.parts.forms import PLAIN, ArtifactId

router = APIRouter(route_class=Route, tags=["artifacts"])


@router.get("/artifacts/{artifact_id}", summary="An artifact and its manifest")
def get_artifact(artifact: VisibleArtifact, store: StoreDep) -> ArtifactView:
    return known_artifact_view(artifact, store)


PathArtifact = Annotated[ArtifactId, Path()]

_CHANGE: dict[int | str, dict[str, Any]] = {
    403: {"description": "The artifact belongs to another key, and this key does not have the scope admin."}
}


@router.delete(
    "/artifacts/{artifact_id}",
    status_code=204,
    summary="Delete an artifact",
    responses={
        **_CHANGE,
        409: {
            "description": "Something needs it: a job that has not ended, embeddings or checkpoints that are "
            "of no use without it, a schedule, its name (`@current`), or a pin."
        },
    },
)
def delete(artifact_id: PathArtifact, store: StoreDep, principal: Submitter) -> Response:
    """The job that made it stays. Files are removed within minutes, unless an equal artifact has the same
    ones."""
    store.retention.delete_artifact(artifact_id, principal.access)
    return Response(status_code=204)


@router.put("/artifacts/{artifact_id}/pin", summary="Pin an artifact", responses=_CHANGE)
def pin(artifact_id: PathArtifact, store: StoreDep, principal: Submitter) -> ArtifactView:
    """Nobody deletes it until it is unpinned, however old it becomes."""
    return known_artifact_view(store.retention.pin(artifact_id, principal.access), store)


@router.delete(
    "/artifacts/{artifact_id}/pin", status_code=204, summary="Unpin an artifact", responses=_CHANGE
)
def unpin(artifact_id: PathArtifact, store: StoreDep, principal: Submitter) -> Response:
    store.retention.pin(artifact_id, principal.access, pinned=False)
    return Response(status_code=204)


@router.put(
    "/artifacts/{artifact_id}/current",
    summary="Promote a version of a name",
    responses={**_CHANGE, 409: {"description": "The artifact has no name."}},
)
def promote(artifact_id: PathArtifact, store: StoreDep, principal: Submitter) -> ArtifactView:
    """`NAME@current` means this version from now on. Jobs that were submitted before keep what they have."""
    return artifact_view(store.artifacts.promote(artifact_id, principal.access), current=True)


@router.delete(
    "/artifacts/{artifact_id}/current",
    status_code=204,
    summary="Undo the promotion of a version",
    responses=_CHANGE,
)
def demote(artifact_id: PathArtifact, store: StoreDep, principal: Submitter) -> Response:
    """If it was `NAME@current`, no version is that until another is promoted."""
    store.artifacts.promote(artifact_id, principal.access, current=False)
    return Response(status_code=204)


@router.get("/artifacts/{artifact_id}/lineage", summary="What an artifact was made from, and what of it")
def get_lineage(artifact: VisibleArtifact, store: StoreDep, reader: Reader) -> LineageView:
    """All artifacts and jobs above it, up to uploads and files, and below it; with specs, seeds, contents of
    files, versions of code and libraries, and licences.

    `stages`, posted to `/pipelines` with `reuse: false`, make it again.
    """
    return lineage_view(artifact, store.lineage.look(artifact, reader.access))


@router.head("/artifacts/{artifact_id}/files/{path:path}", include_in_schema=False)
@router.get(
    "/artifacts/{artifact_id}/files/{path:path}",
    summary="A file of an artifact",
    response_class=Response,
    responses=FILE_RESPONSES,
    openapi_extra={"parameters": RANGE_HEADERS},
)
def get_file(
    artifact: VisibleArtifact,
    path: Annotated[str, Path(pattern=PLAIN, max_length=4096)],
    request: Request,
    library: LibraryDep,
) -> Response:
    """`ETag` is the sha256 of the file. Use `Range` to resume an interrupted download."""
    # Only what the manifest names: no path that somebody made up reaches the storage.
    entry = next((entry for entry in artifact.manifest["files"] if entry["path"] == path), None)
    if entry is None:
        packed = any(entry["path"] == PACKED for entry in artifact.manifest["files"])
        where = f": the files of this dataset are in {PACKED}" if packed else ""
        raise NotFound(f"Artifact {artifact.id} has no file {path!r}{where}")
    return serve(
        request,
        library.open(artifact.uri, path),
        size=entry["bytes"],
        sha256=entry["sha256"],
        name=path.rpartition("/")[2],
    )
