"""Commands about this machine and the service on it."""

import subprocess
import sys
from typing import Annotated

import typer
from rich.table import Column, Table

from client.cli.shared import Json, app, open_client, print_json, print_table
from core.errors import InvalidRequest
from core.settings import Settings


@app.command(epilog="example: reason serve --port 8000")
def serve(
    host: Annotated[
        str, typer.Option(help="Address to listen on. Other than loopback needs an API key.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
) -> None:
    """Run the whole service on this machine: API and worker."""
    from client.serve import serve as run

    raise typer.Exit(run(host, port))


@app.command(epilog="example: reason workers")
def workers(as_json: Json = False) -> None:
    """List the workers with a heartbeat in the last minute."""
    with open_client() as client:
        found = client.workers()
    if as_json:
        print_json([worker.model_dump(mode="json") for worker in found])
        return
    table = Table(Column("id", no_wrap=True), "state", "running", "GPUs", "memory", box=None)
    for worker in found:
        gpus = ", ".join(gpu.name for gpu in worker.gpus) or "none"
        table.add_row(
            worker.id,
            worker.state,
            f"{worker.running}/{worker.slots}",
            gpus,
            f"{worker.memory_bytes / 1e9:.0f} GB",
        )
    print_table(table)


@app.command(epilog="example: reason demo")
def demo(
    full: Annotated[
        bool, typer.Option("--full", help="Use all pairs of the standard library instead of 512.")
    ] = False,
    port: Annotated[int, typer.Option(help="Port of the service. 0: any free port.")] = 0,
    as_json: Json = False,
) -> None:
    """Run a demonstration: start the service, build a dataset, train, compare, stop."""
    from client.demo import run

    raise typer.Exit(run(full=full, port=port, as_json=as_json))


database = typer.Typer(help="Manage the database.", no_args_is_help=True)
app.add_typer(database, name="db")


@database.command(epilog="example: reason db upgrade")
def upgrade() -> None:
    """Upgrade the database schema to the newest version."""
    raise typer.Exit(subprocess.run([sys.executable, "-m", "migrations"], check=False).returncode)


@app.command(context_settings={"ignore_unknown_options": True}, add_help_option=False)
def run() -> None:
    """Run a job without the service: reason run SPEC.yaml --out DIR."""


@app.command(add_help_option=False)
def api() -> None:
    """Run only the HTTP server."""


@app.command(add_help_option=False)
def worker() -> None:
    """Run only a worker."""


@app.command(add_help_option=False)
def gc() -> None:
    """Remove what is old and needed by nothing."""


@app.command(add_help_option=False)
def keys() -> None:
    """Create, list and revoke API keys."""


@app.command(epilog="example: claude mcp add reason -- reason mcp")
def mcp() -> None:
    """Serve the service's calls to agents (Model Context Protocol, on standard input and output)."""
    try:
        from client.mcp_server import serve as serve_agents
    except ModuleNotFoundError as error:
        raise InvalidRequest(f"{error.name} is missing: pip install 'reason-service[mcp]'") from error
    settings = Settings()
    serve_agents(settings.api_url, settings.client_key)


@app.command(add_help_option=False)
def doctor() -> None:
    """Check installation, GPUs, disk, database, broker, storage, hub and service."""
