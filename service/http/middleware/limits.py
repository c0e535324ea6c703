"""Limits of a caller: requests in work, rate and images; the headers say what is left.

Requests are counted before their body is read, images when they become a job: a request that is
sent again and gets the images of the first one pays once. The row of a route says whether its
requests count.
"""

from aiohttp import web
from aiohttp.typedefs import Handler

from service.access.allowance import Charge, Limits
from service.config.credentials import ApiKey
from service.config.table import Config
from service.core.spec import GenerationSpec
from service.core.work import charged
from service.http.middleware import auth
from service.http.state import ALLOWANCE, CALLER, CONFIG, CONNECTIONS, ROUTE


def limits(config: Config, key: ApiKey) -> Limits:
    """Return the limits of ``key``: its own, else those of the settings."""
    return Limits(
        per_minute=config.rate_limit_per_minute if key.rate is None else key.rate,
        burst=config.rate_limit_burst if key.burst is None else key.burst,
        images_per_day=config.quota_images_per_day if key.images is None else key.images,
    )


@web.middleware
async def share(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Count a request that comes through a proxy for the client that the proxy names.

    Raises:
        TooManyFromAddress: that client has as many requests in work as it may.

    """
    limiter = request.app[CONNECTIONS]
    if request[ROUTE].polled or not limiter.proxied(request.remote or ""):
        return await handler(request)
    with limiter.requests.one(auth.client_of(request), limiter.too_many()):
        return await handler(request)


@web.middleware
async def rate(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Count a request for images.

    Raises:
        RateLimited: the caller asks too often.

    """
    if request[ROUTE].counted:
        key = request[CALLER]
        request.app[ALLOWANCE].take(key.name, limits(request.app[CONFIG], key))
    return await handler(request)


def charge(request: web.Request, generation: GenerationSpec) -> Charge:
    """Charge the caller with the images of a new job, which settles the charge at its end.

    The caller of this function gives them back where the job is refused.

    Raises:
        QuotaExceeded: the caller has had its images.

    """
    key = request[CALLER]
    return request.app[ALLOWANCE].charge(
        key.name, charged(generation), limits(request.app[CONFIG], key)
    )


def add_headers(request: web.Request, answer: web.StreamResponse) -> None:
    """Add what is left to the headers, by the names that clients of such APIs read."""
    if CALLER not in request or not request[ROUTE].counted:
        return
    key, allowance = request[CALLER], request.app[ALLOWANCE]
    agreed = limits(request.app[CONFIG], key)
    left = {
        "Requests": allowance.requests_left(key.name, agreed),
        "Images": allowance.images_left(key.name, agreed),
    }
    for kind, what in left.items():
        if what is not None:
            answer.headers[f"X-RateLimit-Limit-{kind}"] = str(what.limit)
            answer.headers[f"X-RateLimit-Remaining-{kind}"] = str(what.remaining)
            answer.headers[f"X-RateLimit-Reset-{kind}"] = str(what.reset_seconds)
