"""Commands about schedules: ``reason schedule``."""

from typing import Annotated

import typer
from rich.table import Column, Table

from client.cli.shared import Json, app, console, open_client, print_json, print_table
from core.jobs.views import ScheduleView

schedule = typer.Typer(
    help="Pipelines that are submitted again and again. One is made by reason pipeline submit, from a file "
    "with schedule.",
    no_args_is_help=True,
)
app.add_typer(schedule, name="schedule")

ScheduleId = Annotated[str, typer.Argument(help="Schedule id, as printed by reason schedule list.")]


@schedule.command("list", epilog="example: reason schedule list")
def list_schedules(as_json: Json = False) -> None:
    """List schedules."""
    with open_client() as client:
        found = client.pipelines.schedules()
    if as_json:
        print_json([one.model_dump(mode="json") for one in found])
        return
    table = Table(Column("id", no_wrap=True), "name", "cron", "next", "last pipeline", "problem", box=None)
    for one in found:
        times = f"{one.cron} {one.timezone}"
        last, problem = one.last_pipeline or "", one.last_problem or ""
        table.add_row(one.id, one.name or "", times, f"{one.next_at:%Y-%m-%d %H:%M} UTC", last, problem)
    print_table(table)


@schedule.command(epilog="example: reason schedule show sch_01k9...")
def show(schedule_id: ScheduleId, as_json: Json = False) -> None:
    """Show a schedule."""
    with open_client() as client:
        print_schedule(client.pipelines.get_schedule(schedule_id), as_json)


@schedule.command(epilog="example: reason schedule run sch_01k9...")
def run(schedule_id: ScheduleId, as_json: Json = False) -> None:
    """Submit the pipeline of a schedule now. Its times stay as they are."""
    with open_client() as client:
        print_schedule(client.pipelines.run_schedule(schedule_id), as_json)


@schedule.command(epilog="example: reason schedule delete sch_01k9...")
def delete(schedule_id: ScheduleId) -> None:
    """Delete a schedule. Pipelines that it has submitted stay."""
    with open_client() as client:
        client.pipelines.delete_schedule(schedule_id)
    console.print(f"Deleted {schedule_id}", highlight=False)


def print_schedule(found: ScheduleView, as_json: bool) -> None:
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    print(f"{found.id}  {found.cron} ({found.timezone})" + (f"  {found.name}" if found.name else ""))
    print(f"  next      {found.next_at:%Y-%m-%d %H:%M} UTC")
    if found.last_at:
        print(f"  last      {found.last_at:%Y-%m-%d %H:%M} UTC  {found.last_pipeline or ''}")
    if found.last_problem:
        print(f"  problem   {found.last_problem}")
