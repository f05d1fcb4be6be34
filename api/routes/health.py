"""Whether the process lives, and whether it can do its work."""

from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from kombu.exceptions import KombuError
from prometheus_client.exposition import choose_encoder
from pydantic import BaseModel

from api.deps import MetricsReader, QueueDep, StoreDep
from api.routing import Route
from core.errors import Unavailable
from core.stack import installed, stack_name
from migrations import is_current

router = APIRouter(route_class=Route, tags=["health"])


_METRICS: dict[str, Any] = {
    "text/plain": {"schema": {"type": "string"}},
    "application/openmetrics-text": {"schema": {"type": "string"}},
}


@router.get("/healthz", summary="Whether the process is alive")
def healthz() -> dict[str, str]:
    return {"status": "ok"}


class Readiness(BaseModel):
    """State of the service. ``checks`` has ``ok`` or an error message for each part.

    ``stack`` names the set of training libraries on this host, ``libraries`` their versions; workers on other
    hosts may have others.
    """

    status: Literal["ok", "not ready"]
    checks: dict[str, str]
    stack: Literal["default", "st6", "none"]
    libraries: dict[str, str]


@router.get(
    "/readyz",
    summary="Whether database and broker answer",
    responses={
        200: {"model": Readiness, "description": "All parts answer."},
        503: {"model": Readiness, "description": "A part does not answer."},
    },
)
def readyz(store: StoreDep, queue: QueueDep) -> JSONResponse:
    """503 if a part does not answer. Without the broker jobs are still accepted: workers look for them in the
    database."""
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
        checks["broker"] = f"not reachable: {error}"
    ready = set(checks.values()) == {"ok"}
    found = Readiness(
        status="ok" if ready else "not ready", checks=checks, stack=stack_name(), libraries=installed()
    )
    return JSONResponse(found.model_dump(), 200 if ready else 503)


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={200: {"description": "Metrics in Prometheus' text format.", "content": _METRICS}},
)
def metrics(request: Request, _: MetricsReader) -> Response:
    """Needs an API key unless REASON_OPEN_METRICS is true."""
    try:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
    except (TypeError, ValueError):  # a version that is none
        encode, content_type = choose_encoder("")
    return Response(encode(request.app.state.registry), media_type=content_type)
