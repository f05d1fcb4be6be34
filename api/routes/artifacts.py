"""Finished outputs: manifests and files."""

from fastapi import APIRouter, Request, Response

from api.deps import Cursor, LibraryDep, Limit, Reader, StoreDep
from api.ranges import serve
from api.views import artifact_view
from core.data.packing import PACKED
from core.errors import NotFound
from core.spec.views import ArtifactView, Page

router = APIRouter(tags=["artifacts"])


@router.get("/artifacts/{artifact_id}", summary="An artifact and its manifest")
def get_artifact(artifact_id: str, store: StoreDep, _: Reader) -> ArtifactView:
    return artifact_view(store.artifacts.get(artifact_id))


@router.head("/artifacts/{artifact_id}/files/{path:path}", include_in_schema=False)
@router.get("/artifacts/{artifact_id}/files/{path:path}", summary="A file of it")
def get_file(
    artifact_id: str, path: str, request: Request, store: StoreDep, library: LibraryDep, _: Reader
) -> Response:
    """`ETag` is the sha256; `Range` goes on with a broken download."""
    artifact = store.artifacts.get(artifact_id)
    # Only what the manifest names: no path that somebody made up reaches the storage.
    entry = next((entry for entry in artifact.manifest["files"] if entry["path"] == path), None)
    if entry is None:
        packed = any(entry["path"] == PACKED for entry in artifact.manifest["files"])
        where = f": the files of this dataset are in {PACKED}" if packed else ""
        raise NotFound(f"Artifact {artifact_id} has no file {path!r}{where}")
    return serve(
        request,
        library.open(artifact.uri, path),
        size=entry["bytes"],
        sha256=entry["sha256"],
        name=path.rpartition("/")[2],
    )


@router.get("/models", summary="Models, newest first")
def models(store: StoreDep, _: Reader, cursor: Cursor = None, limit: Limit = 50) -> Page[ArtifactView]:
    rows, following = store.artifacts.page("model", cursor=cursor, limit=limit)
    return Page(items=[artifact_view(row) for row in rows], next_cursor=following)
