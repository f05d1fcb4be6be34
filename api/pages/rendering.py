"""Templates, their filters, and the headers of every page."""

import hashlib
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Any, get_args

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from api.auth import Principal, Scope
from api.security_headers import security_headers
from core import __version__

_HEADERS = {**security_headers("same-origin", form_action="'self'"), "Cache-Control": "no-store"}


def render(request: Request, template: str, status: int = 200, **context: Any) -> HTMLResponse:
    """A page. Templates know ``base``, the way from the page to the root (a proxy may serve the service under
    a path of its own), and ``may``, the caller's scopes."""
    caller: Principal | None = getattr(request.state, "principal", None)
    text = (
        _environment()
        .get_template(template)
        .render(
            base=base_of(request),
            here=request.scope["path"],
            may={scope for scope in get_args(Scope) if caller and caller.may(scope)},
            signed_in=caller is not None and caller.key_id is not None,
            version=__version__,
            **context,
        )
    )
    return HTMLResponse(text, status, headers=_HEADERS)


def base_of(request: Request) -> str:
    """The relative way from the page to the root: ``../../`` for ``/ui/jobs``'s pages."""
    path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    return "../" * (path.count("/") - 1) or "./"


@cache
def assets() -> dict[str, bytes]:
    """The files of ``static/`` and of ``vendor/``, which `make install` has fetched, by name."""
    folders = [files("api.pages") / name for name in ("static", "vendor")]
    found = [file for folder in folders if folder.is_dir() for file in folder.iterdir()]
    return {file.name: file.read_bytes() for file in found}


def asset_url(name: str) -> str:
    """The address of a file below the root, which changes when any file does: browsers keep it for good. All
    have the same mark, so that a script that others import is one module and runs once."""
    return f"ui/assets/{_mark()}/{name}"


@cache
def _mark() -> str:
    digest = hashlib.sha256()
    for name, content in sorted(assets().items()):
        digest.update(name.encode() + content)
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
        "has_asset": lambda name: name in assets(),
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
    return "just now" if seconds < 5 else " ".join([*duration(seconds).split()[:2], "ago"])


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
