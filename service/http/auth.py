"""Who asks: the door that every request passes, before its body is read.

Closed unless listed: a route that is forgotten here needs a key. Wired by ``add_to``, and by
``authentication`` in the stack of middlewares; handlers find the caller in ``request[CALLER]``.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from service.addresses import client_address, group
from service.credentials import ANONYMOUS, ApiKey
from service.errors import TooManyFailures, Unauthorized
from service.http.failures import Failures
from service.http.keys import ALLOWANCE, CALLER, CONFIG, FAILURES, KEYRING, METRICS
from service.http.template import route_template
from service.keyring import Keyring

log = structlog.get_logger(__name__)

HEADER: Final = "X-API-Key"
METRICS_ROUTE: Final = "/metrics"
HEALTH: Final = "/health"
"""Tells callers with a key more than others."""

OPEN: Final = frozenset(
    {
        *("/", "/docs", "/docs/start.js", "/docs/{name}", "/openapi.json"),
        *(HEALTH, "/health/live", "/health/ready"),
    }
)
"""What a load balancer asks without a key, and pages that are the same in every service."""

READING: Final = frozenset({hdrs.METH_GET, hdrs.METH_HEAD})
SCRAPER: Final = ApiKey(name="/metrics")
"""Whoever brings METRICS_TOKEN; no key can have this name."""

REFRESH_SECONDS: Final = 2.0
"""A revoked key is refused that long after its line left the file, at the latest."""


def add_to(app: web.Application) -> None:
    """Set the doors up; CONFIG and METRICS are there already."""
    config = app[CONFIG]
    app[KEYRING] = Keyring(config.api_keys, config.api_keys_file)
    app[FAILURES] = Failures(config.auth_failures_per_minute)
    if app[KEYRING]:
        app[METRICS].know_keys(app[KEYRING].names)
    app.cleanup_ctx.append(_watched)


@web.middleware
async def authentication(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Find out who asks, or refuse.

    Raises:
        Unauthorized: a key is needed, and this is none.
        TooManyFailures: too many wrong keys came from there.

    """
    request[CALLER] = caller(request)
    return await handler(request)


def caller(request: web.Request) -> ApiKey:
    """Return who asks; nobody in particular where no key is needed."""
    keyring, route = request.app[KEYRING], route_template(request)
    if route == METRICS_ROUTE:
        return _scraper(request)
    if not keyring:
        return ANONYMOUS
    if route in OPEN and request.method in READING and not (route == HEALTH and _tried(request)):
        return ANONYMOUS
    return _admitted(request, keyring.find(credentials(request)))


def insider(request: web.Request) -> bool:
    """Return whether the caller may see more than a load balancer has to."""
    return not request.app[KEYRING] or request[CALLER] is not ANONYMOUS


def credentials(request: web.Request) -> str:
    """Return the secret that a request brings; empty for none, or for two different ones.

    Both headers may carry it: some clients can set only one of them, some set both.
    """
    given = set(request.headers.getall(HEADER, []))
    for value in request.headers.getall(hdrs.AUTHORIZATION, []):
        scheme, _, secret = value.partition(" ")
        given.add(secret.strip() if scheme.lower() == "bearer" else "")
    return given.pop() if len(given) == 1 else ""


def _tried(request: web.Request) -> bool:
    return HEADER in request.headers or hdrs.AUTHORIZATION in request.headers


def _scraper(request: web.Request) -> ApiKey:
    token = request.app[CONFIG].metrics_token
    if not token:
        return ANONYMOUS
    right = HEADER not in request.headers and token.matches(credentials(request))
    return _admitted(request, SCRAPER if right else None)


def _admitted(request: web.Request, found: ApiKey | None) -> ApiKey:
    failures, client = request.app[FAILURES], client_of(request)
    tried = _tried(request)
    if tried and (seconds := failures.wait(client, found.name if found else None)):
        raise TooManyFailures(f"Retry in {seconds} s.", retry_after=seconds)
    if found is None:
        # Who brings no key at all guesses nothing: a browser, or a monitor.
        if tried and failures.failed(client):
            log.warning("keys_guessed", client=client, route=route_template(request))
        raise Unauthorized
    failures.succeeded(client, found.name)
    return found


def client_of(request: web.Request) -> str:
    """Return the client that a wrong key is counted for."""
    return group(
        client_address(
            request.remote or "",
            request.headers.getall(hdrs.X_FORWARDED_FOR, []),
            request.app[CONFIG].trusted_proxies,
        )
    )


@asynccontextmanager
async def _watched(app: web.Application) -> AsyncIterator[None]:
    """Look after the file of keys while the application runs."""
    if not app[KEYRING].watched:
        yield
        return
    task = asyncio.create_task(_watch(app), name="keys")
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _watch(app: web.Application) -> None:
    keyring = app[KEYRING]
    while True:
        await asyncio.sleep(REFRESH_SECONDS)
        keys = await asyncio.to_thread(keyring.changed)
        if keys is not None:
            # On the loop, and the metrics first: no request is counted between the two.
            app[METRICS].know_keys(keys.names)
            keyring.take(keys)
            app[ALLOWANCE].keep_only(keys.names)
