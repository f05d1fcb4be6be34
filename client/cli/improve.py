"""``reason improve``, and the list of recipes."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from pydantic import ValidationError
from rich.table import Column, Table

from client.cli.here import follow_to_end, service_or_own
from client.cli.schedules import print_schedule
from client.cli.shared import Json, app, console, exit_with, open_client, print_json, print_table
from client.improve import (
    check_here,
    check_out,
    find_data,
    find_model,
    find_queries,
    show_plan,
    submit_once,
)
from core.errors import InvalidRequest
from core.spec.files import load_yaml, read_spec
from core.spec.parse import problems_of
from core.spec.parts.queries import LanguageModel
from core.spec.pipelines.recipes import RECIPES
from core.spec.pipelines.schedule import check_cron


@app.command(epilog="example: reason improve docs/")
def improve(
    path: Annotated[
        str, typer.Argument(help="Documents or pairs: a file or folder, or a reference such as dataset:docs.")
    ],
    base_model: Annotated[
        str | None,
        typer.Option(help="Model to start from: a reference, or a folder. Default: that of the recipe."),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="documents, pairs, gpl, reranker or late_interaction. Default: by the data."),
    ] = None,
    test: Annotated[
        str | None, typer.Option(help="Reference of a retrieval set of your own to measure on.")
    ] = None,
    queries: Annotated[
        str | None,
        typer.Option(
            help="Documents: queries that people have asked, with the document that answered each, which "
            "judge."
        ),
    ] = None,
    llm: Annotated[
        str | None,
        typer.Option(
            help="Documents: the language model that writes queries, as YAML "
            "('{endpoint: URL, model: NAME}') or a file with it."
        ),
    ] = None,
    cross_encoder: Annotated[
        str | None, typer.Option(help="gpl: the teacher, a reference or a folder.")
    ] = None,
    retriever: Annotated[str | None, typer.Option(help="reranker: the model that finds candidates.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model.")] = None,
    promote: Annotated[
        str | None,
        typer.Option(
            help="With --name: publish the model as NAME@current only if it is better than the present one "
            "(if_better), or not worse (if_not_worse)."
        ),
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(
            help="Cron expression, such as '0 3 * * SUN': do this again and again on the newest upload of "
            "the data's name."
        ),
    ] = None,
    max_length: Annotated[
        int | None, typer.Option(min=8, help="Longest document in tokens: less is faster.")
    ] = None,
    encoding: Annotated[
        str | None, typer.Option(help="Encoding of the files that are uploaded. Default: UTF-8.")
    ] = None,
    max_reject_share: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Share of files or rows that may be unreadable, and are left out."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to which all outputs are downloaded, when it has ended.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 42,
    reuse: Annotated[
        bool, typer.Option("--reuse/--no-reuse", help="Take results of earlier runs that are equal.")
    ] = True,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only show the stages, as a pipeline to edit.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch/--no-watch", help="Show the progress until it ends.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Train a better model on your data, compare it with the base model, and leave an index to search in.

    Starts a service on this machine for the time of the command when none is running.
    """
    _check_options(recipe, promote, name, schedule)
    model = _read_llm(llm) if llm else None
    if out is not None:
        if not watch or plan or schedule:
            raise InvalidRequest("--out waits for the end: leave --no-watch, --plan and --schedule out")
        check_out(out)
    for text in filter(None, (path, base_model, retriever, queries, cross_encoder)):
        check_here(text)
    why = "--schedule" if schedule else None if watch else "--no-watch"
    with service_or_own(why) as (client, here):
        reading = {"encoding": encoding, "max_reject_share": max_reject_share or 0.0}
        data, fitting = find_data(client, path, console, **reading)
        if schedule:
            data = re.sub(r"^(dataset:[^@]+)@[0-9]+$", r"\1", data)  # whatever is the newest version by then
        inputs = {
            "data": data,
            "base_model": find_model(client, base_model, console) if base_model else None,
            "test": test,
            "queries": find_queries(client, queries, console) if queries else None,
            "llm": model,
            "cross_encoder": find_model(client, cross_encoder, console) if cross_encoder else None,
            "name": name,
            "promote": promote,
            "max_length": max_length,
            "max_reject_share": max_reject_share,
            "seed": seed,
        }
        inputs = {key: value for key, value in inputs.items() if value is not None}
        if retriever is not None:
            inputs["retriever"] = find_model(client, retriever, console)
        chosen = recipe or fitting
        expanded = client.pipelines.expand(chosen, inputs)
        if plan:
            print_json({"name": name or chosen, "stages": expanded.stages})
            return
        show_plan(expanded, console)
        body = {"recipe": chosen, "inputs": inputs, "reuse": reuse}
        body |= {"name": name} if name else {}
        if schedule:
            print_schedule(client.pipelines.schedule({**body, "schedule": schedule}), as_json)
            return
        made, new = submit_once(client, body)
        if not new:
            console.print(f"Continuing {made.id}, which was begun before.", highlight=False)
        if not watch:
            print_json(made.model_dump(mode="json")) if as_json else print(made.id)
            return
        ended = follow_to_end(client, made, as_json, later=here, out=out)
    exit_with(ended.state)


def _read_llm(text: str) -> dict[str, Any]:
    """The settings of a language model: a file, or YAML itself. Raises `InvalidRequest`."""
    try:
        found = read_spec(Path(text)) if Path(text).is_file() else load_yaml(text)
    except yaml.YAMLError as error:
        raise InvalidRequest(f"--llm is neither a file nor YAML: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict):
        raise InvalidRequest("--llm needs at least endpoint and model: '{endpoint: URL, model: NAME}'")
    try:
        LanguageModel.model_validate(found)
    except ValidationError as error:
        named = [f"{problem.path}: {problem.message}" for problem in problems_of(error, LanguageModel)]
        raise InvalidRequest("--llm: " + "; ".join(named)) from error
    return found


def _check_options(recipe: str | None, promote: str | None, name: str | None, schedule: str | None) -> None:
    """Raises `InvalidRequest`, before anything is uploaded."""
    if recipe is not None and recipe not in RECIPES:
        raise InvalidRequest(f"--recipe must be one of {', '.join(RECIPES)}, not {recipe!r}")
    if promote is not None and name is None:
        raise InvalidRequest("--promote needs --name: the model becomes a version of it")
    if schedule is not None:
        check_cron(schedule)


@app.command(epilog="example: reason recipes")
def recipes(as_json: Json = False) -> None:
    """List recipes."""
    with open_client() as client:
        found = client.pipelines.recipes()
    if as_json:
        print_json([one.model_dump(mode="json") for one in found])
        return
    table = Table(Column("recipe", no_wrap=True), "base model", "what it makes", box=None)
    for one in found:
        table.add_row(one.name, one.base_model, one.description)
    print_table(table)
