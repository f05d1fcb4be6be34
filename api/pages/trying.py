"""Try it: one query, and what two models find for it, side by side."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from api.deps import Reader, StoreDep
from api.pages.rendering import render
from api.pages.routing import PageRoute
from api.routes.search import searcher_of
from core.store.schema.tables import Artifact

router = APIRouter(route_class=PageRoute, include_in_schema=False)

_OFFERED = 100

Text = Annotated[str, Query(max_length=300)]


@router.get("/ui/try")
def try_models(
    request: Request, store: StoreDep, reader: Reader, embeddings: Text = "", other: Text = ""
) -> Response:
    """``embeddings`` and ``other`` are ids of artifacts: what is chosen at the beginning."""
    rows, _ = store.artifacts.page("embeddings", access=reader.access, limit=_OFFERED)
    offered = {row.id: _title(row) for row in rows}
    for chosen in (embeddings, other):
        if chosen and chosen not in offered:
            offered[chosen] = _title(store.artifacts.get(chosen, reader.access))
    return render(
        request,
        "try.html.j2",
        offered=offered,
        chosen=[embeddings or next(iter(offered), ""), other],
        possible=searcher_of(request).possible,
    )


def _title(artifact: Artifact) -> str:
    facts: dict[str, Any] = artifact.manifest.get("metadata", {})
    model = str(facts.get("model", "")).rstrip("/").rpartition("/")[2]
    texts = f"{facts['texts']:,} texts" if isinstance(facts.get("texts"), int) else ""
    told = (str(facts.get("name", "")), model, texts, f"{artifact.created_at:%Y-%m-%d %H:%M}")
    return ", ".join(filter(None, told))
