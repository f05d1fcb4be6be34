"""The list of pipelines, and one: its stages as a graph, what its recipe chose, its verdicts."""

from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response

from api.deps import Reader, StoreDep, VisiblePipeline
from api.pages.graph import draw
from api.pages.rendering import render
from api.pages.routing import PageRoute
from api.routes.pipelines import list_pipelines, view_of

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/ui/pipelines")
def pipelines(
    request: Request, store: StoreDep, reader: Reader, cursor: Annotated[str, Query(max_length=300)] = ""
) -> Response:
    page = list_pipelines(store, reader, cursor=cursor or None, limit=50)
    following = urlencode({"cursor": page.next_cursor}) if page.next_cursor else ""
    return render(request, "pipelines.html.j2", pipelines=page.items, following=following, first=not cursor)


@router.get("/ui/pipelines/{pipeline_id}")
def pipeline(request: Request, pipeline: VisiblePipeline, store: StoreDep, reader: Reader) -> Response:
    view = view_of(pipeline, store)
    return render(
        request,
        "pipeline.html.j2",
        pipeline=view,
        graph=draw({name: stage.needs for name, stage in view.stages.items()}),
        final=view.state.final,
        mine=reader.access.may_change(pipeline),
    )
