"""New jobs and pipelines: a form for each recipe and each kind of job."""

from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from api.deps import PlainText, Reader, StoreDep
from api.pages.forms import fields_of, values_of
from api.pages.jobs import short_spec
from api.pages.rendering import render
from api.pages.routing import PageRoute
from core.errors import NotFound
from core.spec.parse import SPEC_BY_KIND
from core.spec.pipelines.recipe_facts import RecipeInputs
from core.spec.pipelines.recipes import RECIPES

router = APIRouter(route_class=PageRoute, include_in_schema=False)

_FIRST: dict[str, tuple[str, ...]] = {
    "prepare": ("source", "task", "name"),
    "mine": ("dataset", "model", "num_negatives", "name"),
    "train": ("family", "base_model", "dataset", "name", "epochs", "batch_size", "learning_rate"),
    "evaluate": ("models", "datasets", "metrics", "name"),
    "embed": ("model", "corpus", "precision", "name"),
    "export": ("model",),
}
"""What most people set, by kind; the rest is folded away."""

_OF_RECIPE: dict[str, tuple[str, ...]] = {
    "documents": ("queries", "llm"),
    "gpl": ("queries", "llm", "cross_encoder"),
    "reranker": ("retriever",),
}
_OF_EVERY_RECIPE = ("data", "base_model", "name")
_OTHERS = tuple(name for name in RECIPES if name != "pairs")
_ONLY_OF = {"cross_encoder": ("gpl",), "retriever": ("reranker",), "queries": _OTHERS, "llm": _OTHERS}
"""Inputs that not all recipes take."""

_SUGGESTED = 50


@router.get("/ui/new")
def choose(request: Request) -> Response:
    """What there is to begin with."""
    kinds = {kind: _about(kind) for kind in SPEC_BY_KIND}
    return render(request, "new.html.j2", recipes=RECIPES.values(), kinds=kinds)


@router.get("/llms.txt")
def for_agents(request: Request) -> Response:
    """The same for language models: https://llmstxt.org."""
    kinds = {kind: _about(kind) for kind in SPEC_BY_KIND}
    page = render(request, "llms.txt.j2", recipes=RECIPES.values(), kinds=kinds)
    page.headers["Content-Type"] = "text/plain; charset=utf-8"
    return page


@router.get("/ui/new/{what}")
def form(
    request: Request,
    what: str,
    store: StoreDep,
    reader: Reader,
    like: Annotated[str, Query(max_length=100)] = "",
    data: PlainText = "",
) -> Response:
    """``like``: a job whose spec is filled in. ``data``: a reference of the rows or documents."""
    recipe = RECIPES.get(what)  # type: ignore[call-overload]
    if recipe is not None:
        fields = [
            field
            for field in fields_of(RecipeInputs, RecipeInputs.REFERENCES)
            if what in _ONLY_OF.get(field.path, (what,))
        ]
        first = (*_OF_EVERY_RECIPE, *_OF_RECIPE.get(what, ()))
        about, filled = recipe.description, {"data": data} if data else {}
        base = recipe.base_model
        fields = [replace(field, default=base) if field.path == "base_model" else field for field in fields]
    elif what in SPEC_BY_KIND:
        model = SPEC_BY_KIND[what]
        fields, first, about = fields_of(model, model.REFERENCES), _FIRST.get(what, ()), _about(what)
        known: dict[str, Any] = short_spec(store.jobs.get(like, reader.access)) if like else {}
        filled = values_of(fields, known)
    else:
        raise NotFound(f"There is no recipe and no kind of job {what!r}")
    return render(
        request,
        "form.html.j2",
        what=what,
        is_recipe=recipe is not None,
        about=about,
        first=sorted((field for field in fields if field.path in first), key=lambda it: first.index(it.path)),
        others=[field for field in fields if field.path not in first],
        filled=filled,
        suggestions={kind: _names(store, reader, kind) for kind in ("dataset", "model")},
    )


def _about(kind: str) -> str:
    """What a kind of job does: the first paragraph of its spec's docstring."""
    return " ".join((SPEC_BY_KIND[kind].__doc__ or "").strip().split("\n\n")[0].split())


def _names(store: StoreDep, reader: Reader, kind: str) -> list[str]:
    """References of the newest artifacts that have a name."""
    rows, _ = store.artifacts.page(kind, access=reader.access, limit=_SUGGESTED)
    return [f"{kind}:{row.name}@{row.version}" for row in rows if row.name]
