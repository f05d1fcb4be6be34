"""Every query of an evaluation: what each model has made of it, and which were won and lost."""

import json
from collections.abc import Iterator
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response

from api.deps import LibraryDep, PlainText, VisibleArtifact
from api.pages.rendering import render
from api.pages.routing import PageRoute
from core.artifacts import Library
from core.errors import NotFound
from core.spec.parts.evaluation import rises
from core.store.schema.tables import Artifact

router = APIRouter(route_class=PageRoute, include_in_schema=False)

QUERIES = "queries.jsonl"
"""In the report of an evaluation."""

_SHOWN = 50
_MOST_BYTES = 64 << 20
"""Of the file: the page reads all of it."""

Text = Annotated[str, Query(max_length=300)]


@router.get("/ui/artifacts/{artifact_id}/queries")
def queries(
    request: Request,
    artifact: VisibleArtifact,
    library: LibraryDep,
    dataset: Text = "",
    metric: Text = "",
    model: Text = "",
    baseline: Text = "",
    category: Text = "",
    show: Text = "",
    search: PlainText = "",
    page: Annotated[int, Query(ge=1, le=10_000)] = 1,
) -> Response:
    """``model`` against ``baseline``; by default the first against the last, as the verdicts have it.
    ``show``: won, lost, tied, or all."""
    report = _report(artifact, library)
    datasets, models = list(report["datasets"]), list(report["models"])
    metrics = list(next(iter(next(iter(report["scores"].values())).values())))
    chosen = {
        "dataset": dataset if dataset in datasets else datasets[0],
        "metric": metric if metric in metrics else report["leading"],
        "model": model if model in models else models[0],
        "baseline": baseline if baseline in models else models[-1],
        "category": category,
        "show": show,
        "search": search,
    }
    rows = [_row(line, chosen) for line in _lines(artifact, library) if line["dataset"] == chosen["dataset"]]
    categories = sorted({row["category"] for row in rows if row["category"]})
    counts = {name: sum(row["outcome"] == name for row in rows) for name in ("won", "lost", "tied")}
    kept = [row for row in rows if _is_asked_for(row, chosen)]
    # What was lost most comes first: that is what people look for. Of one model alone, the worst.
    kept.sort(key=lambda row: (row["gain"] if row["gain"] is not None else 0.0, row["value"] or 0.0))
    if show == "won":
        kept.reverse()
    others = {name: value for name, value in chosen.items() if value}
    return render(
        request,
        "queries.html.j2",
        artifact=artifact,
        name=artifact.name or artifact.output,
        chosen=chosen,
        choices={"dataset": datasets, "metric": metrics, "model": models, "baseline": models},
        categories=categories,
        counts=counts,
        several=len(models) > 1 and chosen["model"] != chosen["baseline"],
        rows=kept[(page - 1) * _SHOWN : page * _SHOWN],
        found=len(kept),
        following=urlencode({**others, "page": page + 1}) if len(kept) > page * _SHOWN else "",
    )


def has_queries(artifact: Artifact) -> bool:
    """Whether it is the report of an evaluation, small enough for a page."""
    sizes = {entry["path"]: entry["bytes"] for entry in artifact.manifest["files"]}
    return "report.json" in sizes and 0 < sizes.get(QUERIES, 0) <= _MOST_BYTES


def _report(artifact: Artifact, library: Library) -> dict[str, Any]:
    if not has_queries(artifact):
        raise NotFound(
            f"{artifact.id} is no report of an evaluation, or one of more queries than a page reads"
        )
    with library.open(artifact.uri, "report.json") as file:
        found: dict[str, Any] = json.load(file)
    return found


def _lines(artifact: Artifact, library: Library) -> Iterator[dict[str, Any]]:
    with library.open(artifact.uri, QUERIES) as file:
        for line in file:
            yield json.loads(line)


def _row(line: dict[str, Any], chosen: dict[str, str]) -> dict[str, Any]:
    """A query with both values, the gain (more is better), and what stood first."""
    value, before = (
        line["values"].get(chosen[name], {}).get(chosen["metric"]) for name in ("model", "baseline")
    )
    gain = None if value is None or before is None else value - before
    if gain is not None and not rises(chosen["metric"]):
        gain = -gain
    outcome = "tied" if gain is None or abs(gain) <= 1e-12 else "won" if gain > 0 else "lost"
    first = line.get("first", {})  # reports of older versions have none
    return {
        "query": line["query"],
        "id": line["query_id"],
        "category": line.get("category"),
        "value": value,
        "before": before,
        "gain": gain,
        "outcome": outcome,
        "first": [first.get(chosen[name]) for name in ("model", "baseline")],
    }


def _is_asked_for(row: dict[str, Any], chosen: dict[str, str]) -> bool:
    return (
        chosen["show"] in ("", row["outcome"])
        and chosen["category"] in ("", row["category"])
        and chosen["search"].lower() in f"{row['id']} {row['query']}".lower()
    )
