"""The path under which a proxy serves the service, e.g. ``/sd``; addresses in answers carry it."""

import re
from collections.abc import Sequence
from typing import Final

from aiohttp import web

from service.http.state import PREFIX

HEADER: Final = "X-Forwarded-Prefix"
LONGEST: Final = 256
SANE: Final = re.compile(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+", re.ASCII)
"""No empty segment, none of dots, and nothing that means more in HTML, JSON or a header."""


def read(values: Sequence[str]) -> str:
    """Return what the header says, without a slash at its end; empty for what is no such path."""
    given = values[0].strip().removesuffix("/") if len(values) == 1 else ""
    return given if len(given) <= LONGEST and SANE.fullmatch(given) else ""


def prefixed(request: web.BaseRequest, path: str) -> str:
    """Return ``path`` as the client of ``request`` has to ask for it."""
    prefix: str = request.get(PREFIX, "")
    return f"{prefix}{path}"
