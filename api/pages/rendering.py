"""Templates, their filters, and the headers of every page."""

import hashlib
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from api.auth import Principal
from core import __version__

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}


def render(request: Request, template: str, status: int = 200, **context: Any) -> HTMLResponse:
    """A page. Templates know ``base``, the way from the page to the root (a proxy may serve the service under
    a path of its own), and ``may``, the caller's scopes."""
    caller: Principal | None = getattr(request.state, "principal", None)
    scopes = caller.scopes if caller else frozenset()
    if "admin" in scopes:
        scopes = scopes | {"read", "submit"}
    text = (
        _environment()
        .get_template(template)
        .render(
            base=base_of(request),
            here=request.scope["path"],
            may=scopes,
            signed_in=caller is not None and caller.key_id is not None,
            version=__version__,
            **context,
        )
    )
    return HTMLResponse(text, status, headers={**HEADERS, "Cache-Control": "no-store"})


def base_of(request: Request) -> str:
    """The relative way from the page to the root: ``../../`` for ``/ui/jobs``'s pages."""
    path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    return "../" * (path.count("/") - 1) or "./"


@cache
def asset_content(name: str) -> bytes | None:
    """A file of ``static/``, or of ``vendor/``, which `make install` has fetched; None if there is none."""
    for folder in ("static", "vendor"):
        file = files("api.pages") / folder / name
        if file.is_file():
            return file.read_bytes()
    return None


def asset_url(name: str) -> str:
    """The address of a file below the root, which changes when any file does: browsers keep it for good. All
    have the same mark, so that a script that others import is one module and runs once."""
    return f"ui/assets/{_mark()}/{name}"


@cache
def _mark() -> str:
    digest = hashlib.sha256()
    for folder in ("static", "vendor"):
        place = files("api.pages") / folder
        for file in sorted(place.iterdir(), key=lambda file: file.name) if place.is_dir() else ():
            digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:12]


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("api.pages", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "duration": duration,
        "bytes": in_bytes,
        "since": since,
        "number": number,
        "said": said,
    }
    environment.globals |= {
        "title": title_of,
        "asset": asset_url,
        "has_asset": lambda name: asset_content(name) is not None,
    }
    return environment


def title_of(job: Any) -> str:
    """What people call a job: its name, or its kind in a pipeline, or its id."""
    return str(job.name or getattr(job, "stage", None) or job.id)


def duration(seconds: float | None) -> str:
    """``45 s``, ``3 min 20 s``, ``2 h 5 min``, ``3 d 4 h``."""
    if seconds is None:
        return ""
    whole = max(0, round(seconds))
    for length, unit, smaller, name in (
        (86_400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= length:
            rest = whole % length // smaller
            return f"{whole // length} {unit}" + (f" {rest} {name}" if rest else "")
    return f"{whole} s"


def in_bytes(count: float | None) -> str:
    """``1.5 GB``, in powers of ten."""
    if count is None:
        return ""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def since(moment: datetime, now: datetime | None = None) -> str:
    """``3 min ago``."""
    seconds = ((now or datetime.now(UTC)) - moment).total_seconds()
    return (
        "just now"
        if seconds < 5
        else f"{duration(seconds).split(' ', 2)[0]} {duration(seconds).split(' ')[1]} ago"
    )


def number(value: float | None) -> str:
    """Four significant digits, and thousands apart."""
    if value is None:
        return "not a number"
    if value and not 1e-3 <= abs(value) < 1e9:
        return f"{value:.3g}"
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.4g}"


def said(value: Any) -> str:
    """A fact of any type, on a line: numbers with thousands apart, long texts cut."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return number(value)
    text = str(value)
    return text if len(text) <= _SAID else text[: _SAID - 1] + "…"


_SAID = 60
