"""Scripts and styles. Their address has a mark of their content, so that browsers ask once."""

from fastapi import APIRouter, Response

from api.pages.rendering import assets
from core.errors import NotFound

router = APIRouter(include_in_schema=False)

_TYPES = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}


@router.get("/ui/assets/{mark}/{name}")
def asset(mark: str, name: str) -> Response:
    """``mark`` only makes the address new."""
    ending = name.rpartition(".")[2]
    content = assets().get(name) if ending in _TYPES else None
    if content is None:
        raise NotFound(f"Not found: {name}")
    headers = {"Cache-Control": "public, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}
    return Response(content, media_type=_TYPES[ending], headers=headers)
