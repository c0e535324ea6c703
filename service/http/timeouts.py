"""How long a request may take: what its client asks for, within the setting."""

import math
from typing import Final

from aiohttp import web

from service.errors import ValidationFailed
from service.http.keys import CONFIG

HEADER: Final = "X-Request-Timeout"


def timeout_seconds(request: web.Request) -> float:
    """Return the seconds that a request is given.

    Raises:
        ValidationFailed: the header is no number within the limit.

    """
    most = request.app[CONFIG].request_timeout_seconds
    given = request.headers.get(HEADER)
    if given is None:
        return most
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= most:
        raise ValidationFailed({HEADER: [f"must be a number of seconds above 0, at most {most:g}"]})
    return seconds
