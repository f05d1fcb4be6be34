"""`/docs`: Swagger UI, whose files come from an installed package, and nothing from anywhere else."""

from importlib.resources import files

from fastapi import APIRouter, Response

from api.security_headers import security_headers
from core.errors import NotFound

router = APIRouter(include_in_schema=False)

_HEADERS = {**security_headers("no-referrer", font_src="'self'"), "Cache-Control": "no-cache"}

# Relative addresses, so that a proxy may serve the API under a path of its own.
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>reason: API</title>
<link rel="icon" href="docs/favicon.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""

# validatorUrl: by default Swagger UI sends the schema's address to a public validator.
_START = """window.ui = SwaggerUIBundle({
  url: new URL("openapi.json", document.baseURI).href,
  dom_id: "#swagger-ui",
  deepLinking: true,
  persistAuthorization: false,
  validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis],
  layout: "BaseLayout",
});
"""

_FILES = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon.png": "image/png",
}


@router.get("/docs")
def page() -> Response:
    return Response(_PAGE, media_type="text/html", headers=_HEADERS)


@router.get("/docs/start.js")
def start() -> Response:
    return Response(_START, media_type="text/javascript", headers=_HEADERS)


@router.get("/docs/{name}")
def asset(name: str) -> Response:
    """A file of Swagger UI."""
    if name not in _FILES:
        raise NotFound(f"Not found: /docs/{name}")
    content = (files("fastapi_offline") / "static" / name).read_bytes()
    return Response(content, media_type=_FILES[name], headers=_HEADERS)
