"""Files of pages that are served as they are, and cached by browsers."""

import gzip
import hashlib
from dataclasses import dataclass, field
from typing import Final

from aiohttp import hdrs, web

HOUR: Final = "public, max-age=3600"
FOREVER: Final = "public, max-age=31536000, immutable"
"""For an address that changes with what it answers."""

ASK: Final = "no-cache"
"""Browsers keep the file, and ask each time whether it is still the same."""


@dataclass(frozen=True, kw_only=True)
class Asset:
    """A file of a page; all who fetch it are sent the same bytes."""

    content: bytes
    media_type: str
    tag: str = field(init=False)
    packed: bytes = field(init=False)
    """The same by gzip, which no request has to wait for; empty where that is not smaller."""

    def __post_init__(self) -> None:
        """Hash and pack the file, once."""
        packed = gzip.compress(self.content, mtime=0)
        smaller = packed if len(packed) < len(self.content) else b""
        object.__setattr__(self, "tag", hashlib.sha256(self.content).hexdigest())
        object.__setattr__(self, "packed", smaller)


def asset_answer(request: web.Request, asset: Asset, cache: str) -> web.Response:
    """Return the answer with a file, or 304 for a client that has it.

    Always whole: nobody needs parts of such files, and aiohttp answers wrong ranges in a form of
    its own.
    """
    packed = bool(asset.packed) and "gzip" in request.headers.get(hdrs.ACCEPT_ENCODING, "").lower()
    tag = f"{asset.tag}-gzip" if packed else asset.tag
    headers = {
        hdrs.CACHE_CONTROL: cache,
        hdrs.ETAG: f'"{tag}"',
        hdrs.VARY: hdrs.ACCEPT_ENCODING,
    }
    if any(known.value in {tag, "*"} for known in request.if_none_match or ()):
        return web.Response(status=304, headers=headers)
    if packed:
        headers[hdrs.CONTENT_ENCODING] = "gzip"
    body = asset.packed if packed else asset.content
    answer = web.Response(body=body, content_type=asset.media_type, headers=headers)
    if asset.media_type.startswith("text/"):
        answer.charset = "utf-8"
    return answer
