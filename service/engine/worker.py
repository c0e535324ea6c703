"""The engine's own process: commands in, denoising steps, events out."""

import faulthandler
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from service.config import Config
from service.engine.faults import STAGES, FaultFile
from service.engine.messages import (
    Began,
    Cancel,
    Command,
    EngineFailed,
    EngineReady,
    Generate,
    Preview,
    Said,
    Shutdown,
)
from service.errors import ModelError, NotInstalled, ServiceError
from service.telemetry import logs

if TYPE_CHECKING:
    from service.diffusion.step_loop import StepLoop

Tell = Callable[[Said], None]

log = structlog.get_logger(__name__)

IDLE_SECONDS = 1.0
"""With nothing to do for so long the engine tidies up; before, the next job may be on its way."""

LOOK_SECONDS = 5.0
"""Between two looks at the free memory of an engine with nothing to do."""


def run(connection: "Connection[Said, Command]", config: Config) -> None:
    """Load the model and work until told to stop or the service is gone."""
    # Ctrl-C and systemd signal the whole group; the service decides when we end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    faulthandler.enable()
    logs.configure(config)
    try:
        _load_and_work(connection, config)
    except (EOFError, ConnectionError):
        log.info("service_went_away")
    except Exception:
        log.exception("engine_failed")
        sys.exit(1)


def _load_and_work(connection: "Connection[Said, Command]", config: Config) -> None:
    try:
        loop, ready = load(config, connection.send)
        news = warmed_up(loop, config)
    except ServiceError as error:
        passing = isinstance(error, ModelError) and error.passing
        connection.send(EngineFailed(code=error.code, detail=error.detail, passing=passing))
        return
    except ImportError as error:
        detail = f"{error}. Install what the engine needs: make install"
        connection.send(EngineFailed(code=NotInstalled.code, detail=detail))
        return
    for event in (ready, *news):
        connection.send(event)
    work(connection, loop)


def announcing(config: Config, tell: Tell) -> Callable[[str, int], None]:
    """Return what is called before every stage: it tells, then commits the faults asked for."""
    faults = FaultFile(Path(config.fault_file)) if config.fault_file else None

    def begin(stage: str, pictures: int) -> None:
        tell(Began(stage=stage, pictures=pictures))
        if faults is not None and stage in STAGES:
            faults(stage, pictures)

    return begin


def load(config: Config, tell: Tell = lambda _said: None) -> "tuple[StepLoop, EngineReady]":
    """Load the model that the settings name; torch is first imported here.

    From then on ``tell`` hears of every stage that begins.

    Raises:
        ServiceError: the model cannot be loaded, with the cure.

    """
    # torch reads both once, when it first looks for GPUs. The order is NVML's, which the
    # service reads the GPU by; CUDA's own puts the fastest card first.
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    os.environ["CUDA_VISIBLE_DEVICES"] = config.cuda_visible_devices
    from service.diffusion.load import load_model  # noqa: PLC0415
    from service.diffusion.step_loop import StepLoop  # noqa: PLC0415
    from service.models import catalog, in_use  # noqa: PLC0415 - torch waits for those lines

    begin = announcing(config, tell)
    model = load_model(
        catalog.resolve(config.model_id, config.model_cache_dir),
        cache_dir=config.model_cache_dir,
        device=config.device,
        dtype=config.dtype,
        threads=config.torch_threads,
        attention_slicing=config.attention_slicing,
        cpu_offload=config.cpu_offload,
        vram_limit_gb=config.vram_limit_gb,
        vae_tiling=config.vae_tiling,
        vae_tiling_above=config.vae_tiling_above,
        safety_checker=config.safety_checker,
        prediction_type=config.prediction_type,
        most_steps=config.max_steps,
        begin=begin,
    )
    if (path := catalog.resolve(config.model_id, config.model_cache_dir).path) is not None:
        in_use.hold(path)
    loop = StepLoop(
        model,
        batch_limit=config.max_concurrent_requests,
        fault=begin,
    )
    return loop, EngineReady(model=model.info, memory=loop.memory())


def warmed_up(loop: "StepLoop", config: Config) -> list[Said]:
    """Make the first pictures, and return what they taught about memory and batches."""
    from service.diffusion.calibration import calibrate  # noqa: PLC0415 - it imports torch
    from service.diffusion.warm_up import warm_up  # noqa: PLC0415 - it imports torch

    limit = config.max_concurrent_requests
    news: list[Said] = [*warm_up(loop, size=config.min_size, batch_limit=limit)]
    if config.batch_calibration:
        found = calibrate(loop, sizes=(config.default_size, config.min_size), batch_limit=limit)
        news += [found] if found is not None else []
    return news


def work(connection: "Connection[Said, Command]", loop: "StepLoop") -> None:
    """Take commands between two steps, and step while there is something to do."""
    while True:
        if not loop.busy and not connection.poll(IDLE_SECONDS):
            loop.tidy()
            # Others may give memory back meanwhile: what was refused for want of it is so no more.
            while not connection.poll(LOOK_SECONDS):
                _tell_capacity(connection, loop)
        # With nothing to do, wait for a command; else only look whether one is there.
        while connection.poll(0 if loop.busy else None):
            command = connection.recv()
            if isinstance(command, Shutdown):
                return
            _obey(command, loop)
        for outcome in loop.step():
            connection.send(outcome)
        _tell_capacity(connection, loop)
        if loop.busy:
            loop.tidy()


def _tell_capacity(connection: "Connection[Said, Command]", loop: "StepLoop") -> None:
    if (capacity := loop.capacity_news()) is not None:
        connection.send(capacity)


def _obey(command: Command, loop: "StepLoop") -> None:
    match command:
        case Generate(job_id=job_id, request=request):
            loop.add(job_id, request)
        case Cancel(job_id=job_id):
            loop.cancel(job_id)
        case Preview(job_id=job_id, wanted=wanted):
            loop.previews.watch(job_id, wanted=wanted)
