"""``GET /docs``: Swagger UI from its package, on our one description, without the network."""

import functools
import importlib.resources
import importlib.util
from collections.abc import Mapping
from importlib.resources.abc import Traversable
from typing import Final

from aiohttp import web

from service.errors import NotFound
from service.http.files import HOUR, Asset, asset_answer
from service.http.prefix import prefixed
from service.http.schema.decorators import docs

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
"""Swagger UI draws icons from data: and shows image answers from blob: addresses."""

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


@functools.cache
def assets() -> Mapping[str, Asset]:
    """Return the files of the page by name; they are read and hashed once."""
    return {
        name: Asset(content=(files() / name).read_bytes(), media_type=kind)
        for name, kind in FILES.items()
    }


@docs(summary="Show this description as a page.", produces=["text/html"])
async def page(request: web.Request) -> web.Response:
    """Answer with the page."""
    headers = {"Content-Security-Policy": POLICY, "Referrer-Policy": "no-referrer"}
    return web.Response(text=_placed(request, PAGE), content_type="text/html", headers=headers)


async def start(request: web.Request) -> web.Response:
    """Answer with the script that starts the page; inline it would break the policy."""
    return web.Response(text=_placed(request, START), content_type="text/javascript")


async def asset(request: web.Request) -> web.Response:
    """Answer with one of the files that the page needs; the package has many more."""
    name = request.match_info["name"]
    if name not in FILES:
        raise NotFound(f"There is no {name} here; see {prefixed(request, '/docs')}.")
    return asset_answer(request, assets()[name], HOUR)


def _placed(request: web.Request, text: str) -> str:
    """Return a text of ours with the addresses in it as the client has to ask for them."""
    return text.replace('"/', f'"{prefixed(request, "/")}')
