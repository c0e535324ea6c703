"""What the application and its requests carry, by typed key."""

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from service.config import Config
from service.diffusion.generation import GenerationRequest
from service.jobs.consumer import Consumer
from service.telemetry.disk import DiskSampler
from service.telemetry.gpu import GpuSampler
from service.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from service.telemetry.spans import Spans  # It needs the extra ``tracing``.

CONFIG = web.AppKey("config", Config)
CONSUMER = web.AppKey("consumer", Consumer)
DISK = web.AppKey("disk", DiskSampler)
GPU = web.AppKey("gpu", GpuSampler)
METRICS = web.AppKey("metrics", Metrics)
OPENAPI = web.AppKey("openapi", bytes)
SPANS: web.AppKey["Spans"] = web.AppKey("spans")
"""Only there while spans are exported."""

STARTED = web.AppKey("started", float)
"""``time.monotonic`` at the start."""

DEADLINE = web.RequestKey("deadline", asyncio.Timeout)
ERROR_CODE = web.RequestKey("error_code", str)
GENERATION = web.RequestKey("generation", GenerationRequest)
REQUEST_ID = web.RequestKey("request_id", str)
TRACE_ID = web.RequestKey("trace_id", str)
"""32 hexadecimal digits; empty for a request without a trace."""
