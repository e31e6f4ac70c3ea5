"""Owns ``/docs``: the API's description as a page, with everything it loads served from here.

The files are Swagger UI's, as the package ``fastapi-swagger`` carries them; of that package only the files are used,
its code is not even imported. The page loads what is listed here and nothing else: its Content-Security-Policy sees to
it.
"""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response

PACKAGE = "fastapi_swagger"
FILES: Mapping[str, str] = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}
INITIALIZER = "initializer.js"
ASSETS = frozenset(f"/docs/{name}" for name in (*FILES, INITIALIZER))
"""Paths that are the same for everybody and tell nothing of this server."""

# Swagger UI draws its icons from data: URLs; scripts and styles are files of ours, without exception.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
PAGE_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": POLICY,
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
FILE_HEADERS = {"cache-control": "public, max-age=3600", "x-content-type-options": "nosniff"}

PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Onysoft worker: the HTTP API</title>
<link rel="icon" type="image/png" href="docs/favicon-32x32.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"><noscript>This page needs JavaScript; <a href="openapi.json">openapi.json</a> does not.</noscript>
</div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/initializer.js"></script>
</body>
</html>
"""

SCRIPT = """\
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  persistAuthorization: false,
  validatorUrl: null,
});
"""

router = APIRouter(include_in_schema=False)


@router.get("/docs")
async def show_page() -> Response:
    """Show the description as a page for readers."""
    return HTMLResponse(PAGE, headers=PAGE_HEADERS)


@router.get(f"/docs/{INITIALIZER}")
async def show_script() -> Response:
    """Serve what starts the page."""
    return Response(SCRIPT, headers=FILE_HEADERS, media_type="text/javascript")


async def show_file(request: Request) -> Response:
    """Serve one of Swagger UI's files."""
    name = request.scope["path"].rpartition("/")[2]
    return FileResponse(_folder() / name, headers=FILE_HEADERS, media_type=FILES[name])


for _name in FILES:
    router.add_api_route(f"/docs/{_name}", show_file, methods=["GET"], name=f"show_{_name}")


def _folder() -> Path:
    spec = find_spec(PACKAGE)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "resources"
