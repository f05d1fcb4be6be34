"""``reason webhook``: who is told of changes."""

from itertools import islice
from typing import Annotated

import typer
from rich.table import Column, Table

from client.cli.shared import Json, app, console, open_client, print_json, print_table

webhook = typer.Typer(help="Have changes of jobs and pipelines sent to a URL.", no_args_is_help=True)
app.add_typer(webhook, name="webhook")

WebhookId = Annotated[str, typer.Argument(help="Webhook id, as printed by reason webhook add.")]


@webhook.command(epilog="example: reason webhook add https://example.org/hook --event 'pipeline.*'")
def add(
    url: Annotated[str, typer.Argument(help="http or https URL that accepts POST.")],
    event: Annotated[
        list[str] | None,
        typer.Option(help="job.STATE, pipeline.STATE, job.*, pipeline.* or *. Repeatable. Default: ends."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Create a webhook, and print the secret of its signatures, which is shown only once."""
    with open_client() as client:
        made = client.create_webhook(url, event)
    if as_json:
        print_json(made.model_dump(mode="json"))
        return
    print(f"{made.id}  {made.url}  {', '.join(made.events)}")
    print(made.secret)
    console.print("Store the secret now: it is not shown again.", highlight=False)


@webhook.command("list", epilog="example: reason webhook list")
def list_webhooks(as_json: Json = False) -> None:
    """List webhooks."""
    with open_client() as client:
        found = client.webhooks()
    if as_json:
        print_json([one.model_dump(mode="json") for one in found])
        return
    table = Table(Column("id", no_wrap=True), "url", "events", "state", box=None)
    for one in found:
        state = "failing" if one.failing_since else "ok"
        table.add_row(one.id, one.url, ", ".join(one.events), one.disabled_reason or state)
    print_table(table)


@webhook.command(epilog="example: reason webhook deliveries hook_01k9...")
def deliveries(
    webhook_id: WebhookId,
    limit: Annotated[int, typer.Option(min=1, max=500)] = 20,
    as_json: Json = False,
) -> None:
    """List the deliveries of a webhook, newest first."""
    with open_client() as client:
        found = list(islice(client.deliveries(webhook_id, limit), limit))
    if as_json:
        print_json([one.model_dump(mode="json") for one in found])
        return
    table = Table(Column("id", no_wrap=True), "event", "of", "state", "tries", "answer", box=None)
    for one in found:
        answer = one.error or (str(one.status) if one.status else "")
        table.add_row(one.id, one.type, one.subject, one.state, str(one.attempts), answer)
    print_table(table)


@webhook.command(epilog="example: reason webhook delete hook_01k9...")
def delete(webhook_id: WebhookId) -> None:
    """Delete a webhook; what was not sent is not sent."""
    with open_client() as client:
        client.delete_webhook(webhook_id)
