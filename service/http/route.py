"""Rows of the route table, and the row that a request belongs to."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, dataclass
from enum import Enum, auto
from typing import Final, Protocol

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler
from marshmallow import Schema

from service.errors import ServiceError
from service.telemetry import labels

LONGEST_PROBE: Final = 256
"""Bytes of the first line of a request for a polled route."""

CLIENT: Final = "X-Client"
"""Header by which the page and the command line are counted apart from the native API."""

READING: Final = (hdrs.METH_HEAD, hdrs.METH_GET)
UNMATCHED: Final = "unmatched"
"""Path of the row of a request that no route matches."""


class Access(Enum):
    """Credentials that a route asks for where the service has any."""

    PUBLIC = auto()
    OPTIONAL_KEY = auto()
    """No key; the answer to a caller with a key says more."""

    KEY = auto()
    METRICS_TOKEN = auto()


@dataclass(frozen=True, kw_only=True)
class ErrorFacts:
    """Facts of a request that the answer with its error may name."""

    instance: str
    """Path as the client asked for it."""

    request_id: str
    prefix: str
    """Path under which a proxy serves the service."""


class ErrorRenderer(Protocol):
    """Error form of an API: status, body and media type; the headers are the same in all."""

    def __call__(self, error: ServiceError, facts: ErrorFacts, /) -> web.Response:
        """Return the answer with ``error``."""


@dataclass(frozen=True, kw_only=True)
class Api:
    """An API of the service; requests below its prefixes get errors in its form."""

    name: str
    prefixes: tuple[str, ...] = ("",)
    """Beginnings of its paths, each of whole segments; empty: every path."""

    basic: bool = False
    """Whether a key may also come as the password of Basic authentication (RFC 7617)."""

    render_error: ErrorRenderer
    error_schema: type[Schema]

    def label(self, headers: Mapping[str, str]) -> str:
        """Return what a request counts as in metrics: one of ``labels.APIS``."""
        client = headers.get(CLIENT, "").lower()
        return client if self.name == labels.NATIVE and client in labels.CLIENTS else self.name


@dataclass(frozen=True)
class Route:
    """A row of the table."""

    method: str
    path: str
    """Template of the path, e.g. ``/jobs/{id}``."""

    handler: Handler
    _: KW_ONLY
    pattern: str = ""
    """Path for the router, where a part of it is more than one segment; empty: ``path``."""

    api: Api
    access: Access = Access.KEY
    counted: bool = False
    """Whether requests count for the rate limit, and answers tell the limits of the caller."""

    polled: bool = False
    """Whether machines ask every few seconds: no spans, no INFO line for a good answer, and
    places beyond the limits on connections."""

    body_bytes: int = 0
    """Most bytes of the body where it may bring images; 0 for MAX_BODY_BYTES."""

    tag: str = ""
    operation: str = ""
    """Name of the operation in the API description; empty: the route is not in it."""


class RouteTable:
    """The routes of an application; each request finds its row by what the router matched."""

    def __init__(self, app: web.Application, rows: Iterable[Route]) -> None:
        self.rows = tuple(rows)
        self._rows: dict[web.AbstractRoute, Route] = {}
        for row in self.rows:
            resource = app.router.add_resource(row.pattern or row.path)
            methods = READING if row.method == hdrs.METH_GET else (row.method,)
            self._rows |= {resource.add_route(each, row.handler): row for each in methods}
        polled = "|".join(re.escape(row.path) for row in self.rows if row.polled)
        self._probe_line = re.compile(rf"(?:GET|HEAD) (?:{polled})[? ][^\n]*\n".encode())
        below = {(prefix, row.api) for row in self.rows for prefix in row.api.prefixes}
        self._apis = sorted(below, key=lambda found: -len(found[0]))

    def row(self, request: web.Request) -> Route:
        """Return the row of a request; one that no route matches has a row that needs a key."""
        match = request.match_info
        return self._rows.get(match.route) or Route(
            request.method, UNMATCHED, match.handler, api=self.api(request.rel_url.raw_path)
        )

    def probes(self, data: bytes) -> bool | None:
        """Return whether a request that begins so is for a polled route; None: not yet known."""
        if self._probe_line.match(data):
            return True
        return False if b"\n" in data or len(data) > LONGEST_PROBE else None

    def api(self, path: str) -> Api:
        """Return the API that a path belongs to."""
        below = (api for prefix, api in self._apis if f"{path}/".startswith(f"{prefix}/"))
        return next(below, self._apis[-1][1])
