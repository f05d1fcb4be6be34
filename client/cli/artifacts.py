"""Commands about what is stored: datasets, models, embeddings."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table

from client.cli.shared import Json, app, console, open_client, print_json, print_table
from client.client import is_checkpoint
from core.errors import InvalidRequest
from core.settings import Settings


@app.command(epilog="example: reason models")
def models(as_json: Json = False) -> None:
    """List models, newest first."""
    with open_client() as client:
        found = list(client.models())
    if as_json:
        print_json([model.model_dump(mode="json") for model in found])
        return
    table = Table(Column("reference", no_wrap=True), "name", "size", "job", "created", box=None)
    for model in found:
        name = f"{model.name}@{model.version}" if model.name else ""
        name += " (current)" if model.current else ""
        size = f"{model.bytes / 1e6:.1f} MB"
        table.add_row(f"model:{model.id}", name, size, model.job_id, f"{model.created_at:%Y-%m-%d %H:%M:%S}")
    print_table(table)


@app.command(epilog="example: reason upload data/tickets.csv --name tickets")
def upload(
    path: Annotated[Path, typer.Argument(help="A file of rows, an archive, or a folder.")],
    name: Annotated[str, typer.Option(help="Name. Changed content under the same name is a new version.")],
    max_reject_share: Annotated[
        float, typer.Option(min=0, max=1, help="Largest share of rows that may be unreadable.")
    ] = 0.0,
    encoding: Annotated[
        str | None, typer.Option(help="Encoding of text files that are not UTF-8: cp1252, shift_jis.")
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            help="role:NAME for a column whose name is not known (query:title), or role:NUMBER for a file "
            "without a header. Repeat it for each column."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Upload a dataset. The service reads all of it first and reports unusable rows with their lines."""
    if not path.exists():
        raise InvalidRequest(f"File or folder not found: {path}")
    try:
        with open_client() as client:
            made = client.upload(
                path, name, max_reject_share=max_reject_share, encoding=encoding, columns=columns or ()
            )
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror or error}") from error
    if as_json:
        print_json(made.model_dump(mode="json"))
        return
    splits = ", ".join(f"{split} {rows}" for split, rows in made.metadata.get("splits", {}).items())
    print(f"dataset:{made.id}  {made.name}@{made.version}  {splits}")


@app.command(epilog="example: reason upload-model data/my-model --name my-model")
def upload_model(
    path: Annotated[Path, typer.Argument(help="A model's folder, or a tar or zip of one.")],
    name: Annotated[str, typer.Option(help="Name. Changed content under the same name is a new version.")],
    as_json: Json = False,
) -> None:
    """Upload a model with weights in safetensors. Its files are checked; jobs refer to it as model:NAME."""
    if not path.exists():
        raise InvalidRequest(f"File or folder not found: {path}")
    try:
        with open_client() as client:
            made = client.upload_model(path, name)
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror or error}") from error
    if as_json:
        print_json(made.model_dump(mode="json"))
        return
    family = made.metadata.get("family") or "family unknown: jobs must name it"
    print(f"model:{made.id}  {made.name}@{made.version}  {family}  {made.bytes / 1e6:.1f} MB")
    if left_out := made.metadata.get("left_out"):
        console.print(f"Not stored, because such files can run code: {', '.join(left_out)}")


@app.command(epilog="example: reason datasets")
def datasets(as_json: Json = False) -> None:
    """List datasets, newest first."""
    with open_client() as client:
        found = list(client.datasets())
    if as_json:
        print_json([dataset.model_dump(mode="json") for dataset in found])
        return
    table = Table(Column("reference", no_wrap=True), "name", "rows", "size", "job", "created", box=None)
    for dataset in found:
        table.add_row(
            f"dataset:{dataset.id}",
            f"{dataset.name}@{dataset.version}" if dataset.name else "",
            ", ".join(f"{split} {rows}" for split, rows in dataset.metadata.get("splits", {}).items()),
            f"{dataset.bytes / 1e6:.1f} MB",
            dataset.job_id or "",
            f"{dataset.created_at:%Y-%m-%d %H:%M:%S}",
        )
    print_table(table)


@app.command(epilog="example: reason download job:job_01k9.../model data/my-model")
def download(
    reference: Annotated[
        str,
        typer.Argument(
            help="job:ID/OUTPUT, model:ID or model:NAME@VERSION; or a checkpoint, job:ID/checkpoint@best, of "
            "which a job makes a model first."
        ),
    ],
    folder: Annotated[Path, typer.Argument(help="Folder to write the files to.")],
    as_json: Json = False,
) -> None:
    """Download an artifact and verify its checksums. The same command resumes an interrupted download."""
    if folder.exists() and not folder.is_dir():
        raise InvalidRequest(f"{folder} is a file, not a folder")
    try:
        with open_client() as client:
            if is_checkpoint(reference) and not (job := client.export(reference)).state.final:
                told = (
                    f"Waiting for job {job.id}, which makes a model of the checkpoint (reason why {job.id})."
                )
                console.print(told, highlight=False, soft_wrap=True)
            artifact = client.download(reference, folder)
    except OSError as error:
        raise InvalidRequest(f"{folder} cannot be written: {error.strerror}") from error
    if as_json:
        print_json(artifact.model_dump(mode="json"))
    else:
        print(f"{len(artifact.files)} files, {artifact.bytes / 1e6:.1f} MB in {folder}")


@app.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True}, add_help_option=False
)
def search(context: typer.Context) -> None:
    """Search a corpus: reason search job:ID/embeddings "how do I ..."."""
    arguments = list(context.args)
    if any(argument.startswith(("job:", "model:", "artifact:")) for argument in arguments):
        from client.search import localized

        with open_client() as client:
            arguments = localized(arguments, client, Settings())
    os.execv(sys.executable, [sys.executable, "-m", "core.cli.search", *arguments])  # noqa: S606
