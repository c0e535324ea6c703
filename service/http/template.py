"""The route of a request as it was declared: what logs, metrics and doors know it by."""

from typing import Final

from aiohttp import web

UNMATCHED: Final = "unmatched"


def route_template(request: web.Request) -> str:
    """Return the route as it was declared: raw paths would make a series each."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else UNMATCHED
