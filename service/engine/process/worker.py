"""The engine's own process: commands in, denoising steps, events out."""

import faulthandler
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from service.config.limits import limits_of
from service.config.table import Config
from service.core.stage import LOOP_STAGES, Stage
from service.engine import protocol
from service.engine.channel import Channel
from service.engine.faults import FaultFile
from service.errors import ModelError, NotInstalled, ServiceError
from service.telemetry import logs

if TYPE_CHECKING:
    from service.diffusion.loop.step_loop import StepLoop

Send = Callable[[protocol.EngineEvent], None]
EngineChannel = Channel[protocol.EngineEvent, protocol.Command]

log = structlog.get_logger(__name__)

IDLE_SECONDS = 1.0
"""With nothing to do for so long the engine tidies up; before, the next job may be on its way."""

LOOK_SECONDS = 5.0
"""Between two looks at the free memory of an engine with nothing to do."""


def run(channel: EngineChannel, config: Config) -> None:
    """Load the model and work until told to stop or the service is gone."""
    # Ctrl-C, a closed terminal and systemd signal the whole group; the service decides when we end.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    faulthandler.enable()
    logs.configure(config)
    try:
        _load_and_work(channel, config)
    except (EOFError, ConnectionError):
        log.info("service_went_away")
    except Exception:
        log.exception("engine_failed")
        sys.exit(1)


def _load_and_work(channel: EngineChannel, config: Config) -> None:
    try:
        loop, ready = load(config, channel.send)
        news = warmed_up(loop, config)
    except ServiceError as error:
        transient = isinstance(error, ModelError) and error.transient
        failed = protocol.EngineFailed(code=error.code, detail=error.detail, transient=transient)
        channel.send(failed)
        return
    except ImportError as error:
        detail = f"{error}. Install what the engine needs: make install"
        channel.send(protocol.EngineFailed(code=NotInstalled.code, detail=detail))
        return
    for event in (ready, *news):
        channel.send(event)
    work(channel, loop)


def announcing(config: Config, send: Send) -> Callable[[Stage, int], None]:
    """Return the callback before every stage: it reports the stage, then commits the faults."""
    faults = FaultFile(Path(config.fault_file)) if config.fault_file else None

    def begin(stage: Stage, images: int) -> None:
        send(protocol.StageStarted(stage=stage, images=images))
        if faults is not None and stage in LOOP_STAGES:
            faults(stage, images)

    return begin


def load(
    config: Config, send: Send = lambda _said: None
) -> "tuple[StepLoop, protocol.EngineReady]":
    """Load the model that the settings name; torch is first imported here.

    From then on ``send`` gets every stage that begins.

    Raises:
        ServiceError: the model cannot be loaded, with the cure.

    """
    # torch reads both once, when it first looks for GPUs. The order is NVML's, which the
    # service reads the GPU by; CUDA's own puts the fastest card first.
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    os.environ["CUDA_VISIBLE_DEVICES"] = config.cuda_visible_devices
    from service.diffusion.adapters.store import GIB, store_of  # noqa: PLC0415
    from service.diffusion.load import load_model  # noqa: PLC0415
    from service.diffusion.loop.step_loop import StepLoop  # noqa: PLC0415
    from service.models import catalog, model_lock  # noqa: PLC0415
    from service.models.adapters.catalog import catalog_of  # noqa: PLC0415

    begin = announcing(config, send)
    source = catalog.resolve(config.model_id, config.model_cache_dir)
    model = load_model(source, config, begin)
    if (path := catalog.resolve(config.model_id, config.model_cache_dir).path) is not None:
        model_lock.hold(path)
    adapters = store_of(
        model,
        catalog=catalog_of(config),
        host_budget=round(config.lora_host_gb * GIB),
        device_budget=round(config.lora_gpu_gb * GIB),
    )
    limit = config.max_concurrent_requests
    loop = StepLoop(model, batch_limit=limit, fault=begin, adapters=adapters)
    return loop, protocol.EngineReady(model=model.info, memory=loop.meter.use())


def warmed_up(loop: "StepLoop", config: Config) -> list[protocol.EngineEvent]:
    """Make the first images, and return what they taught about memory and batches."""
    from service.diffusion.loop.calibration import calibrate  # noqa: PLC0415 - it imports torch
    from service.diffusion.loop.warm_up import warm_up  # noqa: PLC0415 - it imports torch

    limit, sizes = config.max_concurrent_requests, limits_of(config, loop.model.info.sizes)
    small, usual = sizes.min_size, sizes.default_size
    # The demo is known: its start stays as short as it is.
    large = None if loop.model.info.demo else usual
    news: list[protocol.EngineEvent] = [*warm_up(loop, size=small, large=large, batch_limit=limit)]
    if config.batch_calibration:
        found = calibrate(loop, sizes=(usual, small), batch_limit=limit)
        news += [found] if found is not None else []
    return news


def work(channel: EngineChannel, loop: "StepLoop") -> None:
    """Take commands between two steps, and step while there is something to do."""
    while True:
        if not loop.busy and not channel.poll(IDLE_SECONDS):
            loop.tidy()
            # Others may give memory back meanwhile: what was refused for want of it is so no more.
            while not channel.poll(LOOK_SECONDS):
                _tell_capacity(channel, loop)
        # With nothing to do, wait for a command; else only look whether one is there.
        while channel.poll(0 if loop.busy else None):
            command = channel.receive()
            if isinstance(command, protocol.Shutdown):
                return
            _obey(command, loop)
        for outcome in loop.step():
            channel.send(outcome)
        _tell_capacity(channel, loop)
        if (changed := loop.adapters.news()) is not None:
            channel.send(changed)
        if loop.busy:
            loop.tidy()


def _tell_capacity(channel: EngineChannel, loop: "StepLoop") -> None:
    if (capacity := loop.budget.news()) is not None:
        channel.send(capacity)


def _obey(command: protocol.Command, loop: "StepLoop") -> None:
    match command:
        case protocol.Generate(job_id=job_id, epoch=epoch, request=request):
            loop.add(job_id, request, epoch)
        case protocol.Cancel(job_id=job_id):
            loop.cancel(job_id)
        case protocol.Preview(job_id=job_id, wanted=wanted):
            loop.previews.watch(job_id, wanted=wanted)
