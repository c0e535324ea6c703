"""What the application and its requests carry, by typed key."""

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from service.config import Config
from service.credentials import ApiKey
from service.http.failures import Failures
from service.http.job_orders import Order
from service.jobs.allowance import Allowance
from service.jobs.consumer import Consumer
from service.jobs.durable import Durable
from service.jobs.targets import Targets
from service.keyring import Keyring
from service.telemetry.disk import DiskSampler
from service.telemetry.gpu import GpuSampler
from service.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from service.telemetry.spans import Spans  # It needs the extra ``tracing``.

ALLOWANCE = web.AppKey("allowance", Allowance)
CONFIG = web.AppKey("config", Config)
CONSUMER = web.AppKey("consumer", Consumer)
DISK = web.AppKey("disk", DiskSampler)
DURABLE = web.AppKey("durable", Durable)
"""Absent where no jobs are kept."""

FAILURES = web.AppKey("failures", Failures)
GPU = web.AppKey("gpu", GpuSampler)
KEYRING = web.AppKey("keyring", Keyring)
METRICS = web.AppKey("metrics", Metrics)
OPENAPI = web.AppKey("openapi", bytes)
SPANS: web.AppKey["Spans"] = web.AppKey("spans")
"""Only there while spans are exported."""

STARTED = web.AppKey("started", float)
"""``time.monotonic`` at the start."""

TARGETS = web.AppKey("targets", Targets)
"""Whom webhooks may go to."""

CALLER = web.RequestKey("caller", ApiKey)
"""Who asks; set by the authentication, before anything else is read."""

DEADLINE = web.RequestKey("deadline", asyncio.Timeout)
ERROR_CODE = web.RequestKey("error_code", str)
ORDER = web.RequestKey("order", Order)
REQUEST_ID = web.RequestKey("request_id", str)
TRACE_ID = web.RequestKey("trace_id", str)
"""32 hexadecimal digits; empty for a request without a trace."""
