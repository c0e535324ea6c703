"""Where the parts meet."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from service.config import Config
from service.engine.base import Engine
from service.http import middlewares, routes, server, tracing
from service.http.keys import CONFIG, CONSUMER, DISK, GPU, METRICS, STARTED
from service.jobs.consumer import Consumer
from service.telemetry.disk import DiskCollector, DiskSampler
from service.telemetry.gpu import GpuSampler
from service.telemetry.gpu_collector import GpuCollector
from service.telemetry.metrics import Metrics


def create_app(config: Config, engine: Engine, metrics: Metrics | None = None) -> web.Application:
    """Build the service around an engine; nothing starts before the application does."""
    app = server.application(config)
    app[CONFIG] = config
    app[METRICS] = metrics = metrics or Metrics()
    app[CONSUMER] = Consumer(engine, metrics, config)
    app[GPU] = GpuSampler("" if config.device == "cpu" else config.cuda_visible_devices)
    app[STARTED] = time.monotonic()
    app[DISK] = DiskSampler({"models": config.model_cache_dir})
    metrics.watch(GpuCollector(app[GPU]))
    metrics.watch(DiskCollector(app[DISK]))
    tracing.add_to(app)
    middlewares.add_to(app)
    routes.add_to(app)
    app.cleanup_ctx.extend((_samplers, _consumer))
    app.on_shutdown.append(_drain)
    return app


@asynccontextmanager
async def _samplers(app: web.Application) -> AsyncIterator[None]:
    app[GPU].start()
    app[DISK].start()
    yield
    app[DISK].stop()
    app[GPU].stop()


@asynccontextmanager
async def _consumer(app: web.Application) -> AsyncIterator[None]:
    await app[CONSUMER].start()
    yield
    await app[CONSUMER].stop()


async def _drain(app: web.Application) -> None:
    """Refuse new work first; aiohttp then waits for the handlers, and cleans up last."""
    app[CONSUMER].drain()
