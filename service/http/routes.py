"""Every route, in one table."""

import warnings

from aiohttp import web
from prometheus_client.aiohttp import make_aiohttp_handler

from service.http import health, jobs, openapi, swagger
from service.http.body import BodyParser
from service.http.decorators import docs
from service.http.generate import generate_handler
from service.http.keys import CONFIG, METRICS, OPENAPI

REST = web.RequestKey("rest", dict)
"""Where aiohttp-apispec puts what no ``put_into`` names; nothing here."""


def add_to(app: web.Application) -> None:
    """Add the routes and the parser that checks their bodies."""
    metrics = docs(
        operationId="metrics",
        tags=["description"],
        summary="Metrics in the text format of Prometheus, or OpenMetrics if asked for.",
        produces=["text/plain", "application/openmetrics-text"],
    )(make_aiohttp_handler(app[METRICS].registry))
    app.router.add_get("/", swagger.root)
    app.router.add_post("/generate", generate_handler(app[CONFIG]))
    app.router.add_post("/jobs", jobs.accept_handler(app[CONFIG]))
    app.router.add_get("/jobs", jobs.page)
    app.router.add_get("/jobs/{id}", jobs.show)
    app.router.add_delete("/jobs/{id}", jobs.cancel)
    app.router.add_get("/jobs/{id}/image", jobs.image)
    app.router.add_get("/jobs/{id}/events", jobs.watch)
    app.router.add_get("/health", health.health)
    app.router.add_get("/health/live", health.live)
    app.router.add_get("/health/ready", health.ready)
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/openapi.json", openapi.openapi)
    app.router.add_get("/docs", swagger.page)
    app.router.add_get("/docs/start.js", swagger.start)
    app.router.add_get("/docs/{name}", swagger.asset)
    with warnings.catch_warnings():
        # The middleware of aiohttp-apispec looks for these two names, which are no AppKeys.
        warnings.simplefilter("ignore", web.NotAppKeyWarning)
        app["_apispec_parser"] = BodyParser()
        app["_apispec_request_data_name"] = REST
    app[OPENAPI] = openapi.describe(app)
