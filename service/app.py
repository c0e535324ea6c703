"""Where the parts meet."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from service.config import Config
from service.engine.base import Engine
from service.heap import keep_trimmed, share_arenas
from service.http import auth, middlewares, routes, server, tracing
from service.http.generate import metadata
from service.http.keys import (
    ALLOWANCE,
    CONFIG,
    CONSUMER,
    DISK,
    DURABLE,
    GPU,
    KEYRING,
    METRICS,
    SPANS,
    STARTED,
    TARGETS,
)
from service.http.outbound import Outbound
from service.http.pictures import files
from service.jobs import durable
from service.jobs.allowance import Allowance
from service.jobs.consumer import Consumer
from service.jobs.durable import Durable
from service.telemetry.disk import DiskCollector, DiskSampler
from service.telemetry.gpu import GpuSampler
from service.telemetry.gpu_collector import GpuCollector
from service.telemetry.metrics import Metrics


def create_app(config: Config, engine: Engine, metrics: Metrics | None = None) -> web.Application:
    """Build the service around an engine; nothing starts before the application does."""
    app = server.application(config)
    app[CONFIG] = config
    app[METRICS] = metrics = metrics or Metrics()
    app[ALLOWANCE] = Allowance()
    auth.add_to(app)
    app[CONSUMER] = Consumer(engine, metrics, config, weights=app[KEYRING].weights)
    app[GPU] = GpuSampler("" if config.device == "cpu" else config.cuda_visible_devices)
    app[STARTED] = time.monotonic()
    kept = {"results": Path(config.data_dir)} if config.data_dir else {}
    app[DISK] = DiskSampler({"models": config.model_cache_dir, **kept})
    metrics.watch(GpuCollector(app[GPU]))
    metrics.watch(DiskCollector(app[DISK]))
    app[TARGETS] = durable.targets(config)
    if config.data_dir:
        app[DURABLE] = Durable(
            config,
            app[CONSUMER],
            metrics,
            app[ALLOWANCE],
            encode=files,
            describe=metadata,
            post=Outbound(app[TARGETS]),
            spans=lambda: app.get(SPANS),
        )
    tracing.add_to(app)
    middlewares.add_to(app)
    routes.add_to(app)
    app.cleanup_ctx.extend((_housekeeping, _samplers, _durable, _consumer))
    app.on_shutdown.append(_drain)
    return app


@asynccontextmanager
async def _housekeeping(_app: web.Application) -> AsyncIterator[None]:
    share_arenas()  # Before there are threads that have heaps of their own.
    trimming = asyncio.create_task(keep_trimmed(), name="housekeeping")
    yield
    trimming.cancel()
    await asyncio.gather(trimming, return_exceptions=True)


@asynccontextmanager
async def _samplers(app: web.Application) -> AsyncIterator[None]:
    app[GPU].start()
    app[DISK].start()
    yield
    app[DISK].stop()
    app[GPU].stop()


@asynccontextmanager
async def _durable(app: web.Application) -> AsyncIterator[None]:
    if DURABLE not in app:
        yield
        return
    async with app[DURABLE].opened():
        yield


@asynccontextmanager
async def _consumer(app: web.Application) -> AsyncIterator[None]:
    await app[CONSUMER].start()
    yield
    await app[CONSUMER].stop()


async def _drain(app: web.Application) -> None:
    """Refuse new work first; aiohttp then waits for the handlers, and cleans up last."""
    app[CONSUMER].drain()
    if DURABLE in app:
        app[DURABLE].book.closing.set()  # Event streams end; what is not over goes on later.
