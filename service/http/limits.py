"""What a caller may still ask for, checked at the door and told in the answer's headers.

Requests are counted before their body is read, pictures when they become
a job: who sends a request again and gets the first one's pictures pays once. Only requests for
pictures count: who polls a job that it was given does nothing that needs a limit.
"""

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from service.config import Config
from service.credentials import ApiKey
from service.diffusion.generation import GenerationRequest
from service.http.keys import ALLOWANCE, CALLER, CONFIG
from service.jobs.allowance import Charge, Limits


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


def charge(request: web.Request, generation: GenerationRequest) -> Charge:
    """Charge the caller with the pictures of a new job, which settles that at its end.

    Who hands the job in gives them back where it is refused.

    Raises:
        QuotaExceeded: the caller has had its pictures.

    """
    key = request[CALLER]
    return request.app[ALLOWANCE].charge(
        key.name, generation.num_images, limits(request.app[CONFIG], key)
    )


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
