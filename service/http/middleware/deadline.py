"""The deadline of a request: what its client asks for, within the setting."""

import asyncio
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler

from service.errors import RequestTimedOut, ValidationFailed
from service.http.state import CONFIG, DEADLINE
from service.http.values import number, only

HEADER: Final = "X-Request-Timeout"


@web.middleware
async def deadline(request: web.Request, handler: Handler) -> web.StreamResponse:
    """End a request that takes too long, from reading its body to writing its image."""
    seconds = timeout_seconds(request)
    try:
        async with asyncio.timeout(seconds) as timeout:
            request[DEADLINE] = timeout
            return await handler(request)
    except TimeoutError as error:
        if not timeout.expired():
            raise
        raise timed_out(request) from error


def timeout_seconds(request: web.Request) -> float:
    """Return the seconds that a request is given.

    Raises:
        ValidationFailed: the header is no number within the limit, or there are two.

    """
    most = request.app[CONFIG].request_timeout_seconds
    given = only(request.headers, HEADER, None)
    if given is None:
        return most
    seconds = number(given)
    if not 0 < seconds <= most:
        raise ValidationFailed({HEADER: [f"must be a number of seconds above 0, at most {most:g}"]})
    return seconds


def timed_out(request: web.Request) -> RequestTimedOut:
    """Return the error of a request that missed its deadline."""
    seconds = timeout_seconds(request)
    setting = HEADER if HEADER in request.headers else "REQUEST_TIMEOUT_SECONDS"
    return RequestTimedOut(
        f"It took more than {seconds:g} s ({setting}); "
        "ask for fewer steps or a smaller image, or try again when the queue is shorter."
    )
