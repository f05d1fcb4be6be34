"""Whether the process lives, and whether it can do its work."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse
from kombu.exceptions import KombuError
from prometheus_client.exposition import choose_encoder

from api.auth import authenticate
from api.deps import QueueDep, SettingsDep, StoreDep
from core.errors import Unavailable
from migrations import is_current

router = APIRouter(tags=["health"])


@router.get("/", include_in_schema=False)
def root() -> RedirectResponse:
    return RedirectResponse("/docs")


@router.get("/healthz", summary="The process lives")
def healthz() -> dict[str, str]:
    return {"status": "ok"}


@router.get("/readyz", summary="Database and broker answer")
def readyz(store: StoreDep, queue: QueueDep) -> JSONResponse:
    """503 when a part is away. Jobs are still accepted without the broker: the sweepers find them."""
    checks: dict[str, str] = {}
    try:
        store.database.ping()
        checks["database"] = "ok" if is_current(store.database) else "needs `reason db upgrade`"
    except Unavailable as error:
        checks["database"] = str(error)
    try:
        queue.ping()
        checks["broker"] = "ok"
    except (KombuError, OSError) as error:
        checks["broker"] = f"away: {error}"
    ready = set(checks.values()) == {"ok"}
    return JSONResponse({"status": "ok" if ready else "not ready", "checks": checks}, 200 if ready else 503)


@router.get("/metrics", summary="Numbers for Prometheus", response_class=Response)
def metrics(request: Request, store: StoreDep, settings: SettingsDep) -> Response:
    """Needs a key unless REASON_OPEN_METRICS is set."""
    if not settings.open_metrics:
        authenticate(request, store, "read")
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(request.app.state.registry), media_type=content_type)
