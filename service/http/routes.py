"""Every route, in one table."""

import asyncio
from collections.abc import Iterable
from functools import partial

from aiohttp import web

from service.http.native import adapters, health, jobs, models, swagger
from service.http.native.generate import generate_handler
from service.http.native.problems import NATIVE
from service.http.native.scrape import scrape
from service.http.openai import rows as openai_rows
from service.http.page import page
from service.http.route import Access, Route, RouteTable
from service.http.schema import openapi
from service.http.sdapi import routes as sdapi
from service.http.state import CONFIG, DISPATCHER, ROUTES, SCRAPING
from service.http.uploads.receiving import body_bytes

native = partial(Route, api=NATIVE)
public = partial(native, access=Access.PUBLIC)
probe = partial(public, polled=True, tag="health")
job = partial(native, tag="jobs")
about = partial(native, tag="models")
described = partial(public, tag="description")


def rows(app: web.Application) -> Iterable[Route]:
    """Return the table of ``app``; a row without an operation is not in the API description."""
    limits, longest = app[DISPATCHER].limits(), app[CONFIG].request_timeout_seconds
    generate, accept = generate_handler(limits, longest), jobs.accept_handler(limits, longest)
    images = body_bytes(app[CONFIG])
    token, details = Access.METRICS_TOKEN, Access.OPTIONAL_KEY
    return (
        described("GET", "/", page.root, operation="root"),
        described("GET", "/page/{version}/{name}", page.asset),
        described("GET", "/page/{version}/{folder}/{name}", page.asset),
        native(
            *("POST", "/generate", generate),
            counted=True,
            body_bytes=images,
            tag="images",
            operation="generate",
        ),
        job("POST", "/jobs", accept, counted=True, body_bytes=images, operation="createJob"),
        job("GET", "/jobs", jobs.list_jobs, operation="listJobs"),
        job("DELETE", "/jobs", jobs.remove_jobs, operation="removeJobs"),
        job("GET", "/jobs/{id}", jobs.get_job, operation="getJob"),
        job("DELETE", "/jobs/{id}", jobs.cancel_job, operation="cancelJob"),
        job("POST", "/jobs/{id}/interrupt", jobs.interrupt_job, operation="interruptJob"),
        job("GET", "/jobs/{id}/image", jobs.get_image, operation="getJobImage"),
        job("GET", "/jobs/{id}/events", jobs.stream_events, operation="watchJob"),
        about("GET", "/models", models.list_models, operation="listModels"),
        about("GET", "/models/adapters", adapters.list_adapters, operation="listAdapters"),
        *openai_rows.rows(app[CONFIG]),
        *sdapi.rows(app[CONFIG]),
        probe("GET", "/health", health.health, access=details, operation="health"),
        probe("GET", "/health/live", health.live, operation="live"),
        probe("GET", "/health/ready", health.ready, operation="ready"),
        described("GET", "/metrics", scrape, access=token, polled=True, operation="metrics"),
        described("GET", "/openapi.json", openapi.openapi, operation="openapi"),
        described("GET", "/docs", swagger.page, operation="docs"),
        described("GET", "/docs/start.js", swagger.start),
        described("GET", "/docs/{name}", swagger.asset),
    )


def add_to(app: web.Application) -> None:
    """Add the routes, and their description."""
    app[ROUTES] = RouteTable(app, rows(app))
    app[SCRAPING] = asyncio.Lock()
    sdapi.add_to(app)
    openapi.current(app)
    # Read now: a busy service has no time for it, perhaps no file descriptor.
    swagger.assets()
    page.index()
