"""Webhooks: URLs that are told of changes of jobs and pipelines."""

from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Path, Response
from pydantic import Field

from api.deps import Limit, Reader, SettingsDep, StoreDep, Submitter
from api.routing import Route
from api.views import delivery_view, webhook_view
from core.errors import InvalidRequest, Problem
from core.jobs.views import DeliveryView, NewWebhookView, Page, WebhookView
from core.settings import Settings
from core.spec.parts.forms import DELIVERY_ID, WebhookId
from core.spec.requests import NewWebhook, is_public_address

router = APIRouter(route_class=Route, prefix="/webhooks", tags=["webhooks"])

PathWebhook = Annotated[WebhookId, Path()]
DeliveryCursor = Annotated[str, Field(max_length=300, json_schema_extra={"pattern": DELIVERY_ID})] | None


@router.post("", status_code=201, summary="Create a webhook; its secret is shown only once")
def create(asked: NewWebhook, store: StoreDep, settings: SettingsDep, principal: Submitter) -> NewWebhookView:
    """Every event is sent by POST as JSON {type, timestamp, data}, signed as Standard Webhooks says. Without
    an answer of 2xx it is sent again for about three days, in order for each job and pipeline.
    """
    _check_address(asked.url, settings)
    hook = store.webhooks.create(asked, principal.access)
    return NewWebhookView(**webhook_view(hook).model_dump(), secret=hook.secret)


def _check_address(url: str, settings: Settings) -> None:
    """Raises `InvalidRequest` for a private address. What a name leads to is checked when it is called."""
    host = urlsplit(url).hostname or ""
    try:
        public = is_public_address(host)
    except ValueError:
        public = host != "localhost" and not host.endswith((".localhost", ".local", ".internal"))
    if not public and not settings.webhook_private_addresses:
        message = (
            f"{host} is not an address of the public internet: REASON_WEBHOOK_PRIVATE_ADDRESSES allows it"
        )
        raise InvalidRequest(f"url: {message}", [Problem("url", message)])


@router.get("", summary="The caller's webhooks, without their secrets")
def webhooks(store: StoreDep, reader: Reader) -> Page[WebhookView]:
    """An administrator sees all."""
    return Page(items=[webhook_view(hook) for hook in store.webhooks.all(reader.access)])


@router.get("/{webhook_id}", summary="A webhook")
def get_webhook(webhook_id: PathWebhook, store: StoreDep, reader: Reader) -> WebhookView:
    return webhook_view(store.webhooks.get(webhook_id, reader.access))


@router.delete("/{webhook_id}", status_code=204, summary="Delete a webhook and its deliveries")
def delete(webhook_id: PathWebhook, store: StoreDep, principal: Submitter) -> Response:
    store.webhooks.remove(webhook_id, principal.access)
    return Response(status_code=204)


@router.get("/{webhook_id}/deliveries", summary="Deliveries of a webhook, newest first")
def deliveries(
    webhook_id: PathWebhook, store: StoreDep, reader: Reader, cursor: DeliveryCursor = None, limit: Limit = 50
) -> Page[DeliveryView]:
    """Those of the last 30 days, with their tries."""
    rows, following = store.webhooks.deliveries(webhook_id, reader.access, cursor, limit)
    return Page(items=[delivery_view(row) for row in rows], next_cursor=following)
