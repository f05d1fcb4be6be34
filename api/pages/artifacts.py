"""Datasets and models in lists, and any artifact: its facts, rows, files, and where it comes from."""

from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response

from api.deps import LibraryDep, PlainText, Reader, StoreDep, VisibleArtifact
from api.lineage import lineage_view
from api.pages.graph import draw
from api.pages.queries import has_queries
from api.pages.rendering import render
from api.pages.routing import PageRoute
from api.routes.datasets import has_preview, preview
from api.views import artifact_views, known_artifact_view
from core.jobs.lineage import LineageArtifact, LineageJob, LineageView

router = APIRouter(route_class=PageRoute, include_in_schema=False)

_ROWS = 20
_FILES = 200
_CATEGORIES = 30
_DRAWN = 60
"""Boxes of a lineage; a larger one is a list."""

Cursor = Annotated[str, Query(max_length=300)]


def _listed(request: Request, store: StoreDep, reader: Reader, kind: str, cursor: str) -> Response:
    rows, following = store.artifacts.page(kind, access=reader.access, cursor=cursor or None, limit=50)
    return render(
        request,
        "artifacts.html.j2",
        kind=kind,
        artifacts=artifact_views(rows, store, listed=True),
        following=urlencode({"cursor": following}) if following else "",
    )


@router.get("/ui/datasets")
def datasets(request: Request, store: StoreDep, reader: Reader, cursor: Cursor = "") -> Response:
    return _listed(request, store, reader, "dataset", cursor)


@router.get("/ui/models")
def models(request: Request, store: StoreDep, reader: Reader, cursor: Cursor = "") -> Response:
    return _listed(request, store, reader, "model", cursor)


@router.get("/ui/artifacts/{artifact_id}")
def artifact(
    request: Request,
    artifact: VisibleArtifact,
    store: StoreDep,
    library: LibraryDep,
    reader: Reader,
    split: PlainText = "",
) -> Response:
    view = known_artifact_view(artifact, store)
    shown = preview(artifact, library, split or None, _ROWS) if has_preview(artifact) else None
    lineage = lineage_view(artifact, store.lineage.look(artifact, reader.access))
    facts = {name: value for name, value in view.metadata.items() if not isinstance(value, dict | list)}
    return render(
        request,
        "artifact.html.j2",
        artifact=view,
        facts=facts,
        details={name: value for name, value in view.metadata.items() if name not in facts and value},
        dataset=dataset_of(view.metadata) if artifact.kind == "dataset" else None,
        rejects=next((file["path"] for file in view.files if file["path"].endswith("rejects.jsonl")), None),
        shown=shown,
        columns=list(dict.fromkeys(name for row in shown.items for name in row)) if shown else [],
        by_query=has_queries(artifact),
        reports=[file["path"] for file in view.files if file["path"].endswith("report.html")],
        files=view.files[:_FILES],
        lineage=lineage,
        graph=draw(_needs(lineage)) if len(lineage.artifacts) + len(lineage.jobs) <= _DRAWN else None,
        boxes=_boxes(lineage),
        mine=reader.access.may_change(artifact),
    )


@dataclass(frozen=True)
class DatasetFacts:
    """What a dataset's page says of its rows. ``lengths``: by role, in characters; each with the share of the
    longest, for a bar. ``left_out`` and ``made``: counts by reason, and by kind of query."""

    splits: dict[str, int]
    lengths: dict[str, dict[str, float]]
    categories: dict[str, int]
    left_out: dict[str, int]
    made: dict[str, int]


def dataset_of(metadata: dict[str, Any]) -> DatasetFacts:
    """Of uploads and of prepared datasets; what an older version did not write is left out."""
    statistics, asking = metadata.get("statistics") or {}, metadata.get("asking") or {}
    return DatasetFacts(
        {name: rows for name, rows in (metadata.get("splits") or {}).items() if rows},
        statistics.get("characters") or {},
        dict(list((statistics.get("categories") or {}).items())[:_CATEGORIES]),
        {**(metadata.get("left_out") or {}), **(asking.get("left_out") or {})},
        asking.get("made") or {},
    )


def _needs(lineage: LineageView) -> dict[str, list[str]]:
    """Jobs need the artifacts that they read, artifacts the jobs that made them."""
    jobs = {job.id: [one for one in job.inputs.values() if one] for job in lineage.jobs}
    return {**jobs, **{one.id: [one.job] if one.job else [] for one in lineage.artifacts}}


def _boxes(lineage: LineageView) -> dict[str, dict[str, Any]]:
    """What stands in each box, and where it leads."""
    of_jobs = {job.id: _job_box(job) for job in lineage.jobs}
    return {**of_jobs, **{one.id: _artifact_box(one, lineage.artifact) for one in lineage.artifacts}}


def _job_box(job: LineageJob) -> dict[str, Any]:
    return {"page": f"ui/jobs/{job.id}", "title": job.kind, "below": job.name or job.id, "of": "job"}


def _artifact_box(one: LineageArtifact, shown: str) -> dict[str, Any]:
    name = f"{one.name}@{one.version}" if one.name else one.id
    title = one.kind if one.kind == one.output else f"{one.kind}: {one.output}"
    return {
        "page": f"ui/artifacts/{one.id}",
        "title": title,
        "below": name,
        "of": "artifact here" if one.id == shown else "artifact",
    }
