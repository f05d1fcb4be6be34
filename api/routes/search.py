"""Searching in the embeddings that jobs have made, to try models."""

from typing import Annotated, cast

from fastapi import APIRouter, Body, Request
from pydantic import AfterValidator, Field

from api.deps import Reader, StoreDep
from api.routing import Route
from api.searching import Searcher
from core.jobs.views import HitView, SearchView
from core.spec.parts.base import Strict
from core.spec.parts.refs import parse_ref

router = APIRouter(route_class=Route, prefix="/search", tags=["search"])


def _reference(text: str) -> str:
    """Raises `ValueError` for what cannot name the output of a job."""
    if parse_ref(text).is_checkpoint:
        raise ValueError(f"{text!r} is a checkpoint, not the output of an embed job")
    return text


class Search(Strict):
    """A query, and where to look for its answers."""

    embeddings: Annotated[str, AfterValidator(_reference)] = Field(
        pattern=r"^(job:[A-Za-z0-9_-]+/[A-Za-z0-9_.-]+|artifact:[A-Za-z0-9_-]+)$",
        max_length=200,
        description="The output of an embed job.",
        examples=["job:job_01k9zq5m2w8r4t6y0b3d5f7h9j/embeddings"],
    )
    query: str = Field(min_length=1, max_length=10_000)
    k: int = Field(10, ge=1, le=100, description="Number of texts.")


def searcher_of(request: Request) -> Searcher:
    """The application's."""
    return cast(Searcher, request.app.state.searcher)


@router.post(
    "",
    summary="Search in embeddings",
    responses={
        404: {"description": "The embeddings do not exist, or are not visible to this key."},
        409: {"description": "The job that should have made the embeddings did not succeed."},
        503: {"description": "This host has no libraries for models, or no answer came in time."},
    },
)
def search(request: Request, body: Annotated[Search, Body()], store: StoreDep, reader: Reader) -> SearchView:
    """Return the best texts for a query, by the model that made the embeddings. To try models: one search
    runs at a time, and the first one of a model loads it, which takes seconds.
    """
    found = searcher_of(request).search(store, reader.access, body.embeddings, body.query, body.k)
    hits = [HitView(**hit) for hit in found["hits"]]
    return SearchView(embeddings=body.embeddings, model=found["model"], hits=hits)
