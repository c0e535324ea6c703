"""``GET /``: the page where people make images, and the files that it loads."""

import functools
import hashlib
import importlib.resources
from collections.abc import Iterator, Mapping
from importlib.resources.abc import Traversable
from typing import Final

from aiohttp import hdrs, web

from service.errors import NotFound
from service.http.files import ASK, FOREVER, Asset, asset_answer
from service.http.prefix import prefixed
from service.http.schema.decorators import docs

KINDS: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
INDEX: Final = "index.html"
PLACE: Final = "page/"
"""Path of the files below the page; the page names it relative to its own address, so that it
works below any prefix of a proxy."""

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
"""Nothing from elsewhere, nothing inline, and no text that becomes markup. Previews are data:
addresses, and images are blob: addresses, because an <img> cannot send a key."""


@functools.cache
def assets() -> Mapping[str, Asset]:
    """Return the files that the page loads, by path; they are read and hashed once."""
    return dict(_found(importlib.resources.files(__package__) / "static"))


@functools.cache
def version() -> str:
    """Return a name for these files that changes when one of them does."""
    tags = "".join(f"{name} {asset.tag}\n" for name, asset in sorted(assets().items()))
    return hashlib.sha256(tags.encode()).hexdigest()[:16]


@functools.cache
def index() -> Asset:
    """Return the page itself, which names its files by their version."""
    text = (importlib.resources.files(__package__) / "static" / INDEX).read_text(encoding="utf-8")
    placed = text.replace(f'"{PLACE}', f'"{PLACE}{version()}/')
    return Asset(content=placed.encode(), media_type="text/html")


@docs(
    summary="Show the page to browsers; redirect other clients to the documentation.",
    produces=["text/html"],
    responses={"302": {"description": "The documentation is at `/docs`."}},
)
async def root(request: web.Request) -> web.Response:
    """Answer browsers, which ask for HTML, with the page."""
    if any("text/html" in value.lower() for value in request.headers.getall(hdrs.ACCEPT, [])):
        answer = asset_answer(request, index(), ASK)
        answer.headers["Content-Security-Policy"] = POLICY
        answer.headers[hdrs.VARY] = f"{hdrs.ACCEPT}, {hdrs.ACCEPT_ENCODING}"
        return answer
    headers = {hdrs.LOCATION: prefixed(request, "/docs"), hdrs.VARY: hdrs.ACCEPT}
    return web.Response(status=302, headers=headers)


async def asset(request: web.Request) -> web.Response:
    """Answer with a file of the page, also one of another version of this service.

    While a new version is rolled out behind a proxy, that may be asked for; it must not be kept.
    """
    names = (request.match_info.get("folder", ""), request.match_info["name"])
    path = "/".join(filter(None, names))
    found = assets().get(path)
    if found is None:
        raise NotFound(f"There is no {path} here; see {prefixed(request, '/')}.")
    current = request.match_info["version"] == version()
    return asset_answer(request, found, FOREVER if current else ASK)


def _found(folder: Traversable, above: str = "") -> Iterator[tuple[str, Asset]]:
    for each in folder.iterdir():
        path = f"{above}{each.name}"
        if each.is_dir():
            yield from _found(each, f"{path}/")
        elif kind := KINDS.get(each.name[each.name.rfind(".") :]):
            yield path, Asset(content=each.read_bytes(), media_type=kind)
