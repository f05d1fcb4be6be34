"""Commands about what is kept: checkpoints, pins, deletion, the current version."""

import sys
from functools import partial
from typing import Annotated

import typer
from rich.table import Column, Table

from client.cli.shared import JobId, Json, app, console, open_client, print_json, print_table
from core.errors import InvalidRequest

Kept = Annotated[
    str, typer.Argument(help="model:ID, model:NAME@VERSION, dataset:NAME, job:ID/OUTPUT or artifact:ID.")
]


@app.command(epilog="example: reason checkpoints job_01k9...")
def checkpoints(job_id: JobId, as_json: Json = False) -> None:
    """List the checkpoints of a training that can be used as models, also while it runs."""
    with open_client() as client:
        found = client.checkpoints(job_id)
    if as_json:
        print_json([one.model_dump(mode="json") for one in found])
        return
    if not found:
        console.print("None yet: the first is listed when the training has saved it.", highlight=False)
        return
    table = Table(Column("reference", no_wrap=True), "", "metrics", "size", "saved", box=None)
    for one in found:
        metrics = [f"{name} {value:.4f}" for name, value in one.metrics.items() if _is_score(name, value)]
        marks = ", ".join(mark for mark, is_so in (("best", one.best), ("last", one.last)) if is_so)
        size = f"{one.bytes / 1e6:.1f} MB"
        table.add_row(one.reference, marks, "  ".join(metrics), size, f"{one.created_at:%Y-%m-%d %H:%M:%S}")
    print_table(table)


def _is_score(name: str, value: float | None) -> bool:
    """Whether a metric says how good the model was, and not how the training went."""
    return value is not None and ("@" in name or name == "loss")


@app.command(epilog="example: reason delete job_01k9...")
def delete(
    what: Annotated[
        str,
        typer.Argument(
            help="Id of an ended job or pipeline, which goes with all its outputs; or the reference of one "
            "artifact: model:NAME@VERSION, dataset:NAME, job:ID/OUTPUT."
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete an ended job or pipeline, or an artifact. What something needs is not deleted."""
    with open_client() as client:
        if what.startswith("job_"):
            told, do = f"job {what} and its outputs", partial(client.delete_job, what)
        elif what.startswith("pipe_"):
            told, do = f"pipeline {what}, its jobs and their outputs", partial(client.pipelines.delete, what)
        else:
            found = client.find(what)
            named = f"{found.name}@{found.version}, " if found.name else ""
            told = f"{found.kind} {found.id} ({named}{found.bytes / 1e6:.1f} MB)"
            do = partial(client.delete_artifact, found.id)
        if not yes:
            if not sys.stdin.isatty():
                raise InvalidRequest("reason delete asks before it deletes: use --yes in scripts")
            typer.confirm(f"Delete {told}?", abort=True, err=True)
        do()
    console.print(f"Deleted {told}", highlight=False)


@app.command(epilog="example: reason pin model:my-search@3")
def pin(reference: Kept) -> None:
    """Keep an artifact: nobody deletes it until it is unpinned."""
    with open_client() as client:
        found = client.pin(client.find(reference).id)
    console.print(f"{found.kind} {found.id} is pinned", highlight=False)


@app.command(epilog="example: reason promote model:my-search@3")
def promote(reference: Kept) -> None:
    """Let NAME@current mean this version, for example to go back to an earlier one."""
    with open_client() as client:
        found = client.promote(client.find(reference).id)
    console.print(f"{found.kind}:{found.name}@current is version {found.version}", highlight=False)


@app.command(epilog="example: reason unpin model:my-search@3")
def unpin(reference: Kept) -> None:
    """Undo reason pin."""
    with open_client() as client:
        found = client.find(reference)
        client.unpin(found.id)
    console.print(f"{found.kind} {found.id} is not pinned", highlight=False)
