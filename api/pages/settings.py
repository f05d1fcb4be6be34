"""API keys, webhooks with their deliveries, schedules, and how long what is kept."""

from fastapi import APIRouter, Request, Response

from api.deps import Reader, SettingsDep, StoreDep
from api.pages.rendering import render
from api.pages.routing import PageRoute
from api.views import delivery_view, key_view, schedule_view, webhook_view

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
    hooks = store.webhooks.all(reader.access)
    return render(
        request,
        "settings.html.j2",
        keys=[key_view(key) for key in store.keys.all()] if "admin" in reader.scopes else [],
        hooks=[
            (
                webhook_view(hook),
                [
                    delivery_view(row)
                    for row in store.webhooks.deliveries(hook.id, reader.access, None, _DELIVERIES)[0]
                ],
            )
            for hook in hooks
        ],
        schedules=[schedule_view(one) for one in store.schedules.all(reader.access)],
        kept={f"REASON_{name.upper()}": (what, getattr(settings, name)) for name, what in _KEPT.items()},
    )
