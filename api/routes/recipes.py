"""Recipes: pipelines for common tasks, made from a few inputs."""

from typing import Annotated

from fastapi import APIRouter, Body, Path

from api.deps import LibraryDep, Reader, SettingsDep, StoreDep
from api.recipes import RecipeBook
from api.routing import Route
from api.submission import Checker
from core.jobs.views import RecipeListView, RecipeView
from core.spec.parts.base import Strict
from core.spec.pipelines.recipe_facts import RecipeInputs, RecipeName
from core.spec.pipelines.recipes import RECIPES

router = APIRouter(route_class=Route, prefix="/recipes", tags=["recipes"])


class Expand(Strict):
    """What a recipe is given."""

    inputs: RecipeInputs


@router.get("", summary="List recipes")
def list_recipes(reader: Reader) -> list[RecipeListView]:
    return [
        RecipeListView(name=recipe.name, description=recipe.description, base_model=recipe.base_model)
        for recipe in RECIPES.values()
    ]


@router.post(
    "/{name}/expand",
    summary="Stages of a recipe",
    responses={
        403: {"description": "A file is outside REASON_ALLOWED_PATHS."},
        404: {"description": "A file, dataset, model or job of the inputs does not exist."},
        409: {"description": "A job of the inputs has ended without the output, or did not succeed."},
    },
)
def expand_recipe(
    name: Annotated[RecipeName, Path()],
    body: Annotated[Expand, Body()],
    store: StoreDep,
    settings: SettingsDep,
    library: LibraryDep,
    reader: Reader,
) -> RecipeView:
    """Return the stages that the recipe makes from these inputs, without running them: with the choices that
    were made from the data, their reasons, and estimates of time and memory.

    The stages can be changed and posted to `/pipelines`.
    """
    return RecipeBook(Checker(store, settings, library, reader.access)).view(name, body.inputs)
