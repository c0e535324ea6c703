"""Typed keys of the values that the application and its requests carry."""

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from service.access.allowance import Allowance
from service.access.keyring import Keyring
from service.access.links import LinkSigner
from service.access.lockout import Lockout
from service.config.credentials import ApiKey
from service.config.table import Config
from service.engine.source import EngineSource
from service.gpu.sampler import GpuSampler
from service.http.route import Route, RouteTable
from service.http.schema.orders import Order
from service.http.server.connections import ConnectionLimiter
from service.http.server.shares import Shares
from service.http.server.writing import Shared
from service.jobs.dispatch.dispatcher import Dispatcher
from service.jobs.durable.wiring import DurableJobs
from service.jobs.inputs.base import InputStore
from service.jobs.service import JobService
from service.models.adapters.catalog import AdapterCatalog
from service.models.served.catalog import ModelCatalog
from service.models.served.hashes import ModelHashes
from service.telemetry.disk import DiskSampler
from service.telemetry.metrics import Metrics
from service.webhooks.targets import Targets

if TYPE_CHECKING:
    from service.telemetry.spans import Spans  # It needs the extra ``tracing``.

ADAPTERS = web.AppKey("adapters", AdapterCatalog)
ALLOWANCE = web.AppKey("allowance", Allowance)
CONFIG = web.AppKey("config", Config)
CONNECTIONS = web.AppKey("connections", ConnectionLimiter)
DISK = web.AppKey("disk", DiskSampler)
DISPATCHER = web.AppKey("dispatcher", Dispatcher)
DURABLE = web.AppKey("durable", DurableJobs)
"""Stored jobs; absent without DATA_DIR."""

LINKS = web.AppKey("links", LinkSigner)
"""Signs links to images."""

LOCKOUT = web.AppKey("lockout", Lockout)
"""Wrong keys of each client."""

ENGINES: web.AppKey[EngineSource] = web.AppKey("engines")
"""Where the engines come from."""

GPU = web.AppKey("gpu", GpuSampler)
HASHES = web.AppKey("hashes", ModelHashes)
INPUTS: web.AppKey[InputStore] = web.AppKey("inputs")
"""Images that requests bring."""

JOBS = web.AppKey("jobs", JobService)
KEYRING = web.AppKey("keyring", Keyring)
METRICS = web.AppKey("metrics", Metrics)
MODELS = web.AppKey("models", ModelCatalog)
PROBED: web.AppKey[dict[str, int]] = web.AppKey("probed")
"""Status of the last answer of each polled route, by its path."""

RELOAD = web.AppKey("reload", asyncio.Event)
"""Set by SIGHUP: read the file of keys again."""

ROUTES = web.AppKey("routes", RouteTable)
SCRAPING = web.AppKey("scraping", asyncio.Lock)
"""Held while the metrics are written."""

SENDING = web.AppKey("sending", Shared)
"""Images that are being sent."""

SPANS: web.AppKey["Spans"] = web.AppKey("spans")
"""Present while spans are exported."""

STARTED = web.AppKey("started", float)
"""``time.monotonic`` at the start."""

STREAMS = web.AppKey("streams", Shares)
"""Open event streams of each caller."""

TARGETS = web.AppKey("targets", Targets)
"""Addresses that webhooks may go to."""

CALLER = web.RequestKey("caller", ApiKey)
"""Caller of the request; the authentication sets it before the body is read."""

DEADLINE = web.RequestKey("deadline", asyncio.Timeout)
ERROR_CODE = web.RequestKey("error_code", str)
EXPECTED = web.RequestKey("expected", str)
"""Value of ``Expect`` until the service has answered it; then empty."""

ORDER = web.RequestKey("order", Order)
PREFIX = web.RequestKey("prefix", str)
"""Path under which a trusted proxy serves the service; absent without one."""

REQUEST_ID = web.RequestKey("request_id", str)
ROUTE = web.RequestKey("route", Route)
"""Row of the request in the table of routes."""

TRACE_ID = web.RequestKey("trace_id", str)
"""32 hexadecimal digits; empty for a request without a trace."""

UNSUPPORTED = web.RequestKey("unsupported", bool)
"""Present in a request of an unsupported version of HTTP."""
