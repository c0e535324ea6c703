"""Where the parts meet."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from aiohttp import web

from service.access.allowance import Allowance
from service.access.links import LinkSigner
from service.config.table import Config
from service.engine.base import Engine
from service.engine.source import EngineSource, source_of
from service.gpu.collector import GpuCollector
from service.gpu.sampler import GpuSampler
from service.http import routes, state
from service.http.finished import metadata
from service.http.middleware import auth, stack, tracing
from service.http.server import server
from service.http.server.connections import ConnectionLimiter
from service.http.server.shares import Shares
from service.http.server.writing import Shared
from service.images.encode import files
from service.jobs.dispatch.dispatcher import Dispatcher
from service.jobs.durable import wiring
from service.jobs.durable.wiring import DurableJobs
from service.jobs.inputs.bounds import UploadBounds
from service.jobs.inputs.counted import counting
from service.jobs.inputs.memory import MemoryInputs
from service.jobs.inputs.of_jobs import JobInputs
from service.jobs.service import JobService
from service.models.adapters.catalog import catalog_of
from service.models.served.catalog import catalog_of as models_of
from service.models.served.hashes import ModelHashes
from service.system.executors import FILES
from service.system.malloc import keep_trimmed, share_arenas
from service.telemetry.disk import DiskCollector, DiskSampler
from service.telemetry.metrics import Metrics
from service.webhooks.client import Outbound


def create_app(
    config: Config,
    engines: Engine | Sequence[Engine] | EngineSource,
    metrics: Metrics | None = None,
) -> web.Application:
    """Build the service around its engines; nothing starts before the application does."""
    source = source_of(engines)
    app = server.application(config)
    app[state.CONFIG] = config
    app[state.METRICS] = metrics = metrics or Metrics()
    app[state.PROBED] = {}
    app[state.ADAPTERS] = catalog_of(config)
    app[state.ALLOWANCE] = Allowance()
    app[state.CONNECTIONS] = ConnectionLimiter(config)
    metrics.connections_limit.set(config.max_connections)
    app[state.STREAMS] = Shares(config.max_event_streams_per_key)
    app[state.SENDING] = Shared()
    auth.add_to(app)
    app[state.LINKS] = LinkSigner()
    app[state.MODELS] = models = models_of(config)
    app[state.HASHES] = hashes = ModelHashes(models, config.model_cache_dir)
    app[state.DISPATCHER] = Dispatcher(
        source.engines,
        metrics,
        config,
        weights=app[state.KEYRING].weights,
        models=models,
        hash_of=hashes.ask,
    )
    app[state.DISPATCHER].engines_join = source.engines_join
    app[state.DISPATCHER].adoption_seconds = source.adoption_seconds
    app[state.DISPATCHER].admission.unreachable = source.unreachable
    app[state.ENGINES] = source
    source.measure(metrics)
    elsewhere = config.device == "cpu" or config.engine == "ray"
    app[state.GPU] = GpuSampler("" if elsewhere else config.cuda_visible_devices)
    app[state.STARTED] = time.monotonic()
    kept = {"results": Path(config.data_dir)} if config.data_dir else {}
    app[state.DISK] = DiskSampler({"models": config.model_cache_dir, **kept})
    metrics.watch(GpuCollector(app[state.GPU]))
    metrics.watch(DiskCollector(app[state.DISK]))
    app[state.TARGETS] = wiring.targets(config)
    if not config.data_dir:
        bounds = UploadBounds.of(config)
        app[state.INPUTS] = MemoryInputs(bounds, count=counting(metrics, bounds))
        app[state.JOBS] = JobService(
            app[state.DISPATCHER],
            metrics,
            JobInputs(app[state.INPUTS]),
            spans=lambda: app.get(state.SPANS),
        )
    else:
        app[state.DURABLE] = DurableJobs(
            config,
            app[state.DISPATCHER],
            metrics,
            app[state.ALLOWANCE],
            encode=partial(files, bare=config.bare_images),
            describe=metadata,
            post=Outbound(app[state.TARGETS]),
            spans=lambda: app.get(state.SPANS),
            keys_of=app[state.KEYRING].webhook_keys,
        )
        app[state.JOBS], app[state.INPUTS] = app[state.DURABLE].jobs, app[state.DURABLE].inputs
    tracing.add_to(app)
    stack.add_to(app)
    routes.add_to(app)
    app.cleanup_ctx.extend((_housekeeping, _samplers, _durable, _dispatcher))
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
    app[state.GPU].start()
    app[state.DISK].start()
    app[state.HASHES].recall()
    yield
    app[state.DISK].stop()
    app[state.GPU].stop()


@asynccontextmanager
async def _durable(app: web.Application) -> AsyncIterator[None]:
    if state.DURABLE not in app:
        yield
        return
    async with app[state.DURABLE].opened():
        await FILES.run(app[state.LINKS].load, Path(app[state.CONFIG].data_dir))
        yield


@asynccontextmanager
async def _dispatcher(app: web.Application) -> AsyncIterator[None]:
    dispatcher, source = app[state.DISPATCHER], app[state.ENGINES]
    await dispatcher.start()
    await source.start(dispatcher.join, dispatcher.leave, dispatcher.engines_heard)
    yield
    await dispatcher.stop()
    await source.stop()


async def _drain(app: web.Application) -> None:
    """Refuse new work first; aiohttp then waits for the handlers, and cleans up last."""
    app[state.DISPATCHER].drain()
    app[state.JOBS].closing.set()  # Event streams end; durable jobs that are not over go on later.
