"""Commands about pipelines: ``reason pipeline``."""

import math
import sys
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Column, Table

from client.cli.here import follow_to_end, service_or_own
from client.cli.schedules import print_schedule
from client.cli.shared import (
    Json,
    Set,
    app,
    console,
    exit_with,
    label_filters,
    leaving_it_running,
    open_client,
    print_json,
    print_table,
)
from client.client import Client
from client.improve import check_out, chosen_models, submit_once
from client.watch import watch_pipeline
from core.errors import InvalidRequest
from core.jobs.views import PipelineView
from core.spec.files import apply_settings, read_spec

pipeline = typer.Typer(help="Submit, watch and stop pipelines.", no_args_is_help=True)
app.add_typer(pipeline, name="pipeline")

PipelineId = Annotated[str, typer.Argument(help="Pipeline id, as printed by reason pipeline submit.")]


@pipeline.command(epilog="example: reason pipeline submit pipeline.yaml --set stages.train.epochs=2 --watch")
def submit(
    spec: Annotated[Path, typer.Argument(help="YAML or JSON file with the stages.")],
    settings: Set = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show the progress until the pipeline ends.")
    ] = False,
    key: Annotated[
        str | None,
        typer.Option("--idempotency-key", help="With the same key and spec, repeated calls make one."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Queue a pipeline: all of its stages, or none. With schedule in the file: again and again."""
    data = _with_local_models(apply_settings(read_spec(spec), settings or []))
    with open_client() as client:
        if data.get("schedule") is not None:
            print_schedule(client.pipelines.schedule(data), as_json)
            return
        made = client.pipelines.submit(data, idempotency_key=key)
        if not watch:
            print_json(made.model_dump(mode="json")) if as_json else print(made.id)
            return
        print(made.id, file=sys.stderr)
        _watch(client, made.id, as_json)


@pipeline.command(
    epilog="example: reason pipeline run configs/train_embed.yaml --out data/output/train-embed"
)
def run(
    spec: Annotated[Path, typer.Argument(help="YAML or JSON file with the stages, or the flat form.")],
    settings: Set = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to download the outputs to: OUT/STAGE/OUTPUT, replaced.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run a pipeline to its end. Starts a service on this machine for that time when none is running.

    The same command again continues an interrupted run, and takes the stages that have not changed.
    """
    data = _with_local_models(apply_settings(read_spec(spec), settings or []))
    if data.get("schedule") is not None:
        raise InvalidRequest(
            f"{spec} has a schedule: reason pipeline submit makes it, with a running service"
        )
    if out is not None:
        check_out(out)
    with service_or_own() as (client, here):
        made, new = submit_once(client, data)
        if not new:
            console.print(f"Continuing {made.id}, which was begun before.", highlight=False)
        ended = follow_to_end(client, made, as_json, later=here, out=out)
    exit_with(ended.state)


@pipeline.command(epilog="example: reason pipeline watch pipe_01k9...")
def watch(pipeline_id: PipelineId, as_json: Json = False) -> None:
    """Follow a pipeline to its end."""
    with open_client() as client:
        _watch(client, pipeline_id, as_json)


def _with_local_models(data: dict[str, Any]) -> dict[str, Any]:
    """The flat form names models by paths too: what is a folder here is no repository of a hub."""
    local = {
        name: f"file:{data[name]}"
        for name in ("model_name", "mining_model_name")
        if isinstance(data.get(name), str) and Path(data[name]).is_dir()
    }
    return {**data, **local}


def _watch(client: Client, pipeline_id: str, as_json: bool) -> None:
    with leaving_it_running("pipeline", f"reason pipeline cancel {pipeline_id}"):
        ended = watch_pipeline(client, pipeline_id, console)
    _print(ended, as_json)
    exit_with(ended.state)


@pipeline.command(epilog="example: reason pipeline show pipe_01k9...")
def show(pipeline_id: PipelineId, as_json: Json = False) -> None:
    """Show a pipeline and its stages."""
    with open_client() as client:
        found = client.pipelines.get(pipeline_id)
        _print(found, as_json)
        if not as_json:
            for told in chosen_models(client, found):
                print(f"  {told}")


@pipeline.command("list", epilog="example: reason pipeline list --state running")
def list_pipelines(
    state: Annotated[
        str | None, typer.Option(help="waiting, queued, running, paused, succeeded, failed, cancelled")
    ] = None,
    label: Annotated[list[str] | None, typer.Option(help="key=value, repeatable")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500)] = 50,
    as_json: Json = False,
) -> None:
    """List pipelines, newest first."""
    with open_client() as client:
        pages = client.pipelines.list(limit=limit, state=state, label=label_filters(label))
        found = list(islice(pages, limit))
    if as_json:
        print_json([one.model_dump(mode="json") for one in found])
        return
    table = Table(Column("id", no_wrap=True), "name", "state", "stages", "created", box=None)
    for one in found:
        stages = f"{one.progress.succeeded}/{one.progress.stages}"
        table.add_row(one.id, one.name or "", one.state, stages, f"{one.created_at:%Y-%m-%d %H:%M:%S}")
    print_table(table)


@pipeline.command(epilog="example: reason pipeline cancel pipe_01k9...")
def cancel(pipeline_id: PipelineId, as_json: Json = False) -> None:
    """Cancel all stages that have not ended."""
    with open_client() as client:
        _print(client.pipelines.cancel(pipeline_id), as_json)


@pipeline.command(epilog="example: reason pipeline retry pipe_01k9...")
def retry(pipeline_id: PipelineId, as_json: Json = False) -> None:
    """Queue the failed and cancelled stages again. Stages that have succeeded are not run again."""
    with open_client() as client:
        _print(client.pipelines.retry(pipeline_id), as_json)


def _print(found: PipelineView, as_json: bool) -> None:
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    eta = found.progress.eta_seconds
    left = f"  about {math.ceil(eta / 60)} min left" if eta is not None else ""
    print(f"{found.id}  {found.state}  {found.progress.succeeded} of {found.progress.stages} stages{left}")
    if found.name:
        print(f"  name  {found.name}")
    width = max(map(len, found.stages))
    for name, stage in found.stages.items():
        phase = f" ({stage.phase})" if stage.phase else ""
        reused = f"  reused from {stage.reused_from}" if stage.reused_from else ""
        print(f"  {name:<{width}}  {stage.kind:<8}  {stage.state + phase:<22}  {stage.job}{reused}")
    for name, reference in found.outputs.items():
        print(f"  {name}  {reference}")
    for verdict in found.verdicts:
        print(f"  {verdict.stage}: {verdict.model} on {verdict.dataset}: {verdict.verdict}")
    for choice in found.choices:
        print(f"  {choice.stage}.{choice.field} = {choice.value}: {choice.why}")
    if found.end_reason:
        print(f"  end  {found.end_reason.code}: {found.end_reason.message}")
