"""What a caller may still ask for, checked at the door and told in the answer's headers.

Requests are counted before their body is read, pictures once it is checked. Only requests
for pictures count: who polls a job that it was given does nothing that needs a limit.
"""

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from service.config import Config
from service.credentials import ApiKey
from service.http.keys import ALLOWANCE, CALLER, CHARGE, CONFIG, GENERATION, ORDER
from service.jobs.allowance import Limits


def limits(config: Config, key: ApiKey) -> Limits:
    """Return what is agreed with ``key``: its own limits, else those of the settings."""
    return Limits(
        per_minute=config.rate_limit_per_minute if key.rate is None else key.rate,
        burst=config.rate_limit_burst if key.burst is None else key.burst,
        images_per_day=config.quota_images_per_day if key.images is None else key.images,
    )


def counted(request: web.Request) -> bool:
    """Return whether a request asks for pictures."""
    return request.method == hdrs.METH_POST and request.match_info.http_exception is None


@web.middleware
async def rate(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Count a request for pictures.

    Raises:
        RateLimited: the caller asks too often.

    """
    if counted(request):
        key = request[CALLER]
        request.app[ALLOWANCE].take(key.name, limits(request.app[CONFIG], key))
    return await handler(request)


@web.middleware
async def quota(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Charge pictures, and give them back unless a job settles that at its end.

    The charge goes to the job (``request[CHARGE]``). A request that never became one, or
    was answered by another's pictures, leaves it here.

    Raises:
        QuotaExceeded: the caller has had its pictures.

    """
    if GENERATION in request:
        asked = request[GENERATION]
    elif ORDER in request:
        asked = request[ORDER].generation
    else:
        return await handler(request)
    key = request[CALLER]
    charge = request.app[ALLOWANCE].charge(
        key.name, asked.num_images, limits(request.app[CONFIG], key)
    )
    request[CHARGE] = charge
    try:
        answer = await handler(request)
    except BaseException:
        charge.give_back()
        raise
    if answer.status >= 400:  # noqa: PLR2004 - the first error status
        charge.give_back()
    return answer


def tell(request: web.Request, answer: web.StreamResponse) -> None:
    """Say in the headers what is left; the names are those that clients of such APIs read."""
    if not counted(request) or CALLER not in request:
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
