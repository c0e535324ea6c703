"""Authentication of every request, before its body is read.

The row of its route says which credentials it needs. Wired by ``add_to``, and by
``authentication`` in the stack of middlewares; handlers find the caller in ``request[CALLER]``.
"""

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from service.access.keyring import Keyring
from service.access.lockout import Lockout
from service.config.addresses import client_address, group
from service.config.credentials import ANONYMOUS, ApiKey
from service.errors import TooManyFailures, Unauthorized
from service.http.route import Access
from service.http.state import ALLOWANCE, CALLER, CONFIG, KEYRING, LOCKOUT, METRICS, RELOAD, ROUTE
from service.system.executors import FILES

log = structlog.get_logger(__name__)

HEADER: Final = "X-API-Key"
MOST_KEYS: Final = 4
"""Most keys of one request that are looked at; each is compared with every known key."""

SCRAPER: Final = ApiKey(name="/metrics")
"""Caller with METRICS_TOKEN; no key can have this name."""

REFRESH_SECONDS: Final = 2.0
"""Longest time until a key whose line left the file is refused."""

SILENT_SECONDS: Final = 10.0
SILENT_AGAIN_SECONDS: Final = 60.0
"""Time after which a disk that does not answer for the file of keys is logged, and again."""


def add_to(app: web.Application) -> None:
    """Add the keys and the counts of wrong ones; CONFIG and METRICS are there already."""
    config = app[CONFIG]
    app[KEYRING] = Keyring(config.api_keys, config.api_keys_file)
    app[RELOAD] = asyncio.Event()
    app[LOCKOUT] = Lockout(config.auth_failures_per_minute)
    if app[KEYRING]:
        app[METRICS].know_keys(app[KEYRING].names)
    app.cleanup_ctx.append(_watched)


@web.middleware
async def authentication(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Find the caller of a request, or refuse it.

    Raises:
        Unauthorized: the route needs a key, and the request has no valid one.
        TooManyFailures: too many wrong keys came from the same address.

    """
    request[CALLER] = caller(request)
    return await handler(request)


def caller_of(request: web.Request) -> str:
    """Return who sends a request, as far as options and jobs are kept apart."""
    if request.app[KEYRING]:
        return request[CALLER].name
    return client_of(request)


def caller(request: web.Request) -> ApiKey:
    """Return the caller of a request; ``ANONYMOUS`` where no key is needed."""
    keyring, access = request.app[KEYRING], request[ROUTE].access
    if access is Access.METRICS_TOKEN:
        return _scraper(request)
    if access is Access.PUBLIC or not keyring:
        return ANONYMOUS
    given = _parts(request, HEADER) + bearer_tokens(request)
    if request[ROUTE].api.basic:
        given += basic_passwords(request)
    if access is Access.OPTIONAL_KEY and not given:
        return ANONYMOUS
    return _admitted(request, given, keyring.find)


def sees_details(request: web.Request) -> bool:
    """Return whether the caller may see more than a load balancer needs."""
    return not request.app[KEYRING] or request[CALLER] is not ANONYMOUS


def bearer_tokens(request: web.Request) -> list[str]:
    """Return the Bearer tokens of ``Authorization``; other schemes are for a proxy in front."""
    found = []
    for part in _parts(request, hdrs.AUTHORIZATION):
        scheme, *secret = part.split(maxsplit=1)
        if secret and scheme.lower() == "bearer":
            found += secret
    return found


def basic_passwords(request: web.Request) -> list[str]:
    """Return the passwords of ``Authorization: Basic`` (RFC 7617); the user may be any.

    Clients without a password send the header all the same, with nothing or ``:`` in it: that is
    no credential, and no guess.
    """
    found = []
    for part in _parts(request, hdrs.AUTHORIZATION):
        scheme, *pair = part.split(maxsplit=1)
        if pair and scheme.lower() == "basic":
            with suppress(binascii.Error, UnicodeDecodeError):
                decoded = base64.b64decode(pair[0], validate=True).decode("utf-8")
                found.append(decoded.partition(":")[2])
    return [password for password in found if password]


def _parts(request: web.Request, name: str) -> list[str]:
    # A proxy may join headers of one name with commas (RFC 9110, 5.3), and no key has one.
    values = request.headers.getall(name, [])
    return [part for value in values for part in map(str.strip, value.split(",")) if part]


def _scraper(request: web.Request) -> ApiKey:
    token = request.app[CONFIG].metrics_token
    if not token:
        return ANONYMOUS
    return _admitted(
        request,
        bearer_tokens(request),
        lambda given: SCRAPER if token.matches(given) else None,
        cure="Send METRICS_TOKEN as Authorization: Bearer TOKEN; API keys do not open the metrics.",
    )


def _admitted(
    request: web.Request, given: list[str], find: Callable[[str], ApiKey | None], *, cure: str = ""
) -> ApiKey:
    """Return the owner of the first known key; nothing is revealed about the others."""
    given = list(dict.fromkeys(given))[:MOST_KEYS]
    found = next(filter(None, map(find, given)), None)
    lockout, client = request.app[LOCKOUT], client_of(request)
    route = request[ROUTE]
    # Guessing keys must not hide the metrics from a scraper behind the same address.
    source = (client, route.path if route.access is Access.METRICS_TOKEN else "")
    if given and (seconds := lockout.wait(source, found.name if found else None)):
        raise TooManyFailures(
            f"Retry in {seconds} s: AUTH_FAILURES_PER_MINUTE="
            f"{request.app[CONFIG].auth_failures_per_minute} allows no more.",
            retry_after=seconds,
        )
    if found is None:
        # A request without any key is no guess: a browser, or a monitor.
        if given and lockout.failed(source, guesses=len(given)):
            log.warning("keys_guessed", client=client, route=route.path)
        raise Unauthorized(cure)
    lockout.succeeded(source, found.name)
    return found


def client_of(request: web.Request) -> str:
    """Return the address that wrong keys of a request are counted for."""
    return group(
        client_address(
            request.remote or "",
            request.headers.getall(hdrs.X_FORWARDED_FOR, []),
            request.app[CONFIG].trusted_proxies,
        )
    )


def reload(app: web.Application) -> None:
    """Read the file of keys again soon, changed or not."""
    if app[KEYRING].watched:
        app[RELOAD].set()
    else:
        log.info("reload_without_keys_file", cure="API_KEYS are read at a start only")


@asynccontextmanager
async def _watched(app: web.Application) -> AsyncIterator[None]:
    """Follow the file of keys while the application runs."""
    if not app[KEYRING].watched:
        yield
        return
    task = asyncio.create_task(_watch(app), name="keys")
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _watch(app: web.Application) -> None:
    while True:
        with suppress(TimeoutError):
            await asyncio.wait_for(app[RELOAD].wait(), REFRESH_SECONDS)
        again = app[RELOAD].is_set()
        app[RELOAD].clear()
        try:
            await _refresh(app, again=again)
        except Exception:
            log.exception("keys_not_followed", cure="it is tried again")


async def _refresh(app: web.Application, *, again: bool) -> None:
    keyring = app[KEYRING]
    reading = asyncio.ensure_future(FILES.run(keyring.changed, again=again))
    patience = SILENT_SECONDS
    while not (await asyncio.wait({reading}, timeout=patience))[0]:
        # A network file system without its server: the keys stay, and so does a revoked one.
        log.error("keys_file_does_not_answer", path=app[CONFIG].api_keys_file)
        patience = SILENT_AGAIN_SECONDS
    if (keys := reading.result()) is not None:
        # On the loop, and the metrics first: no request is counted between the two.
        app[METRICS].know_keys(keys.names)
        keyring.take(keys)
        app[ALLOWANCE].keep_only(keys.names)
