"""``GET /docs``: Swagger UI from its package, on our one description, without the network."""

import asyncio
import hashlib
import importlib.resources
import importlib.util
from importlib.resources.abc import Traversable
from typing import Final

from aiohttp import hdrs, web

from service.errors import NotFound
from service.http.decorators import docs

PACKAGE: Final = "swagger_ui"
FILES: Final = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "favicon-32x32.png": "image/png",
}
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Swagger UI draws icons from data: and shows picture answers from blob: addresses."""

PAGE: Final = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>sd-api</title>
<link rel="icon" type="image/png" href="/docs/favicon-32x32.png">
<link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
START: Final = """\
SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  queryConfigEnabled: false,
  validatorUrl: null,
  tryItOutEnabled: true,
});
"""


def files() -> Traversable:
    """Return the folder of Swagger UI, without running the package's own code.

    Its ``__init__`` imports a template engine and looks for web frameworks.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None:  # pragma: no cover - it is a dependency
        raise NotFound(f"The package {PACKAGE} is not installed.")
    return importlib.resources.files(importlib.util.module_from_spec(spec)) / "static"


@docs(
    operationId="docs",
    tags=["description"],
    summary="Show this description as a page.",
    produces=["text/html"],
)
async def page(request: web.Request) -> web.Response:
    """Answer with the page."""
    del request
    headers = {"Content-Security-Policy": POLICY, "Referrer-Policy": "no-referrer"}
    return web.Response(text=PAGE, content_type="text/html", headers=headers)


async def start(request: web.Request) -> web.Response:
    """Answer with the script that starts the page; inline it would break the policy."""
    del request
    return web.Response(text=START, content_type="text/javascript")


async def asset(request: web.Request) -> web.Response:
    """Answer with one of the files that the page needs; the package has many more.

    Always whole: nobody needs parts of them, and aiohttp answers wrong ranges in a form of its
    own.
    """
    name = request.match_info["name"]
    if name not in FILES:
        raise NotFound(f"There is no {name} here; see /docs.")
    content = await asyncio.to_thread((files() / name).read_bytes)
    tag = hashlib.sha256(content).hexdigest()
    headers = {"Cache-Control": "public, max-age=3600", hdrs.ETAG: f'"{tag}"'}
    if any(known.value in {tag, "*"} for known in request.if_none_match or ()):
        return web.Response(status=304, headers=headers)
    return web.Response(body=content, content_type=FILES[name], headers=headers)


@docs(
    operationId="root",
    tags=["description"],
    summary="Send a visitor to the page.",
    responses={"302": {"description": "It is at `/docs`."}},
)
async def root(request: web.Request) -> web.Response:
    """Send a visitor to the page."""
    del request
    return web.Response(status=302, headers={hdrs.LOCATION: "/docs"})
