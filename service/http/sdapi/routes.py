"""Rows of the AUTOMATIC1111 API in the table of routes."""

from collections.abc import Iterable
from functools import partial
from typing import Final

from aiohttp import web

from service.config.table import Config
from service.http.route import Access, Route
from service.http.sdapi import lists, options, progress
from service.http.sdapi.errors import SDAPI
from service.http.sdapi.extras import extra_batch_images, extra_single_image
from service.http.sdapi.generation.image_to_image import image_to_image
from service.http.sdapi.generation.text_to_image import text_to_image
from service.http.sdapi.options import OPTIONS, CallerOptions
from service.http.sdapi.png_info import MOST_AT_ONCE, READING, png_info
from service.http.sdapi.tasks import TASKS, Tasks
from service.http.server.shares import Shares
from service.http.state import METRICS
from service.http.uploads.receiving import body_bytes

row = partial(Route, api=SDAPI, tag="sdapi")
V1: Final = "/sdapi/v1"
BASE64: Final = 4 / 3
"""Characters of base64 for each byte."""


def rows(config: Config) -> Iterable[Route]:
    """Return the rows; the body of an image may be larger than that of other requests."""
    image = int(config.max_image_bytes * BASE64) + config.max_body_bytes
    return (
        row("POST", f"{V1}/txt2img", text_to_image, counted=True, operation="sdapiTextToImage"),
        row(
            "POST",
            f"{V1}/img2img",
            image_to_image,
            counted=True,
            body_bytes=body_bytes(config),
            operation="sdapiImageToImage",
        ),
        row("GET", f"{V1}/options", options.get_options, operation="sdapiOptions"),
        row("POST", f"{V1}/options", options.set_options, operation="sdapiSetOptions"),
        row("GET", f"{V1}/progress", progress.progress, operation="sdapiProgress"),
        row("POST", f"{V1}/interrupt", progress.end, operation="sdapiInterrupt"),
        row("POST", f"{V1}/skip", progress.skip, operation="sdapiSkip"),
        row("POST", f"{V1}/png-info", png_info, body_bytes=image, operation="sdapiPngInfo"),
        row(
            "POST",
            f"{V1}/extra-single-image",
            extra_single_image,
            body_bytes=body_bytes(config),
            operation="sdapiExtraImage",
        ),
        row(
            "POST",
            f"{V1}/extra-batch-images",
            extra_batch_images,
            body_bytes=body_bytes(config),
            operation="sdapiExtraImages",
        ),
        *(
            row("GET", f"{V1}/{path}", made, operation=f"sdapi{name}")
            for path, name, made in lists.READ
        ),
        *(
            row("POST", f"{V1}/{path}", made, operation=f"sdapi{name}")
            for path, name, made in lists.NO_OPS
        ),
        row("GET", "/queue/status", lists.QUEUE, operation="sdapiQueue"),
        row("GET", "/config", lists.CONFIG, operation="sdapiConfig"),
        row("GET", "/internal/ping", lists.PING, access=Access.PUBLIC, operation="sdapiPing"),
    )


def add_to(app: web.Application) -> None:
    """Add what the handlers keep: options and jobs of the callers."""
    app[OPTIONS], app[TASKS] = held, _ = CallerOptions(), Tasks()
    app[READING] = Shares(MOST_AT_ONCE)
    held.evicted = app[METRICS].options_evicted.inc
    app[METRICS].options_held.set_function(lambda: len(held))
