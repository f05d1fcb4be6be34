"""API keys, webhooks with their deliveries, schedules, and how long what is kept."""

from fastapi import APIRouter, Request, Response

from api.deps import Reader, SettingsDep, StoreDep
from api.pages.rendering import render
from api.pages.routing import PageRoute
from api.routes import fleet, schedules, webhooks

router = APIRouter(route_class=PageRoute, include_in_schema=False)

_DELIVERIES = 10
_KEPT = {
    "run_folder_days": "working folders of ended jobs",
    "checkpoint_days": "checkpoints of ended jobs",
    "artifact_days": "outputs that nothing needs",
    "cache_days": "caches of workers",
}


@router.get("/ui/settings")
def settings(request: Request, store: StoreDep, settings: SettingsDep, reader: Reader) -> Response:
    hooks = webhooks.webhooks(store, reader).items
    return render(
        request,
        "settings.html.j2",
        keys=fleet.keys(store, reader).items if reader.may("admin") else [],
        hooks=[
            (hook, webhooks.deliveries(hook.id, store, reader, limit=_DELIVERIES).items) for hook in hooks
        ],
        schedules=schedules.schedules(store, reader).items,
        kept={f"REASON_{name.upper()}": (what, getattr(settings, name)) for name, what in _KEPT.items()},
    )
