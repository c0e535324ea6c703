"""The table of routes, and GET /metrics."""

import asyncio
import json

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.http.schema import openapi
from service.http.state import METRICS

SDAPI_READ = (
    *("cmd-flags", "embeddings", "face-restorers", "hypernetworks", "latent-upscale-modes"),
    *("loras", "memory", "options", "progress", "prompt-styles", "realesrgan-models", "samplers"),
    *("schedulers", "script-info", "scripts", "sd-models", "sd-vae", "upscalers"),
)
SDAPI_POST = (
    *(
        "extra-batch-images",
        "extra-single-image",
        "img2img",
        "interrupt",
        "options",
        "png-info",
        "refresh-checkpoints",
        "refresh-embeddings",
    ),
    *("refresh-loras", "refresh-vae", "reload-checkpoint", "skip", "txt2img"),
    "unload-checkpoint",
)


async def test_the_routes_are_these(client):
    """A new one appears here, in the documentation and in the dashboards."""
    routes = {
        f"{route.method} {route.resource.canonical}"
        for route in client.app.router.routes()
        if route.method != "HEAD"
    }
    expected = {
        "DELETE /jobs",
        "DELETE /jobs/{id}",
        "GET /",
        "GET /docs",
        "GET /docs/start.js",
        "GET /docs/{name}",
        "GET /health",
        "GET /health/live",
        "GET /health/ready",
        "GET /jobs",
        "GET /jobs/{id}",
        "GET /jobs/{id}/events",
        "GET /jobs/{id}/image",
        "GET /metrics",
        "GET /models",
        "GET /models/adapters",
        "GET /openapi.json",
        "GET /v1/images/{id}/{name}",
        "GET /v1/models",
        "GET /v1/models/{id}",
        "GET /page/{version}/{folder}/{name}",
        "GET /page/{version}/{name}",
        "POST /generate",
        "POST /jobs",
        "POST /jobs/{id}/interrupt",
        "POST /v1/images/edits",
        "POST /v1/images/generations",
        "POST /v1/images/variations",
        *("GET /config", "GET /internal/ping", "GET /queue/status"),
        *(f"GET /sdapi/v1/{path}" for path in SDAPI_READ),
        *(f"POST /sdapi/v1/{path}" for path in SDAPI_POST),
    }
    assert expected == routes


@pytest.mark.parametrize("path", ["/health", "/metrics", "/docs", "/openapi.json"])
async def test_what_can_be_read_can_be_asked_about(client, path):
    """HEAD answers like GET, without the body."""
    async with client.head(path) as answer:
        assert (answer.status, await answer.read()) == (200, b"")


async def test_metrics_are_in_the_format_of_prometheus(client):
    """A scrape reads them, and sees this application's registry only."""
    async with client.get("/metrics") as answer:
        assert (answer.status, answer.content_type) == (200, "text/plain")
        families = {f.name for f in text_string_to_metric_families(await answer.text())}
    assert "sd_http_requests" in families
    assert "python_gc_objects_collected" not in families


@pytest.mark.parametrize("media_type", ["text/plain", "application/openmetrics-text"])
async def test_metrics_come_as_they_are_described(client, media_type):
    """OpenMetrics for a scraper that asks for it; both are in the description."""
    async with client.get("/metrics", headers={"Accept": f"{media_type};version=1.0.0"}) as answer:
        assert (answer.status, answer.content_type) == (200, media_type)
    operation = json.loads(openapi.current(client.app))["paths"]["/metrics"]["get"]
    assert media_type in operation["responses"]["200"]["content"]


async def test_however_many_scrape_others_come_in_between(client):
    """Each scrape costs some milliseconds of the event loop; a probe does not wait for all."""
    ended = []

    async def asked(path):
        async with client.get(path) as answer:
            assert answer.status == 200
        ended.append(path)

    await asyncio.gather(*(asked("/metrics") for _ in range(30)), asked("/health/live"))
    assert ended.index("/health/live") < 15


async def test_two_applications_in_one_process_count_for_themselves(serve):
    """Each has its own registry."""
    first, second = await serve(), await serve()
    async with first.get("/health/live"):
        pass
    labels = {"api": "native", "route": "/health/live", "method": "GET", "status": "200"}
    counts = [
        c.app[METRICS].registry.get_sample_value("sd_http_requests_total", labels)
        for c in (first, second)
    ]
    assert counts == [1, None]
