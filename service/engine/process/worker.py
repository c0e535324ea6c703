"""The engine's own process: commands in, denoising steps, events out."""

import faulthandler
import os
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from service.config.table import Config
from service.core.stage import LOOP_STAGES, Stage
from service.engine import protocol
from service.engine.channel import Channel
from service.engine.faults import FaultFile
from service.errors import ModelError, NotInstalled, ServiceError
from service.system import host_memory, installation, malloc
from service.telemetry import logs

if TYPE_CHECKING:
    from service.diffusion.loop.step_loop import StepLoop
    from service.diffusion.pool.member import Member
    from service.diffusion.pool.opener import Opener
    from service.diffusion.pool.pool import ModelPool

Send = Callable[[protocol.EngineEvent], None]
EngineChannel = Channel[protocol.EngineEvent, protocol.Command]

log = structlog.get_logger(__name__)

Begin = Callable[[Stage, int], None]
"""Called before each stage with the images in it; a fault may raise MemoryError."""

Start = Callable[[Config, Send], "tuple[ModelPool, list[protocol.EngineEvent]]"]
"""Loads a model; returns what makes the images, and what the service is to hear first."""

IDLE_SECONDS = 1.0
"""With nothing to do for so long the engine tidies up; before, the next job may be on its way."""

LOOK_SECONDS = 5.0
"""Between two looks at the free memory of an engine with nothing to do."""


def run(channel: EngineChannel, config: Config, begin: Start | None = None) -> None:
    """Load the model, by ``start`` unless told otherwise, and work until told to stop.

    It ends when the service is gone, too.
    """
    # Ctrl-C, a closed terminal and systemd signal the whole group; the service decides when we end.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    faulthandler.enable()
    malloc.share_arenas_if_limited()  # Before there are threads.
    logs.configure(config)
    try:
        _load_and_work(channel, config, begin or start)
    except (EOFError, ConnectionError):
        log.info("service_went_away")
    except Exception:
        log.exception("engine_failed")
        sys.exit(1)


def _load_and_work(channel: EngineChannel, config: Config, begin: Start) -> None:
    try:
        pool, events = begin(config, channel.send)
    except ServiceError as error:
        transient = isinstance(error, ModelError) and error.transient
        failed = protocol.EngineFailed(code=error.code, detail=error.detail, transient=transient)
        channel.send(failed)
        return
    except ImportError as error:
        detail = f"{error}. Install what the engine needs: {installation.here().engine()}"
        channel.send(protocol.EngineFailed(code=NotInstalled.code, detail=detail))
        return
    for event in events:
        channel.send(event)
    work(channel, pool)
    if pool.loading:
        os._exit(0)  # A thread that computes while Python ends would crash the process.


def announcing(config: Config, send: Send) -> Begin:
    """Return the callback before every stage: it reports the stage, then commits the faults."""
    faults = FaultFile(Path(config.fault_file)) if config.fault_file else None

    def begin(stage: Stage, images: int) -> None:
        send(protocol.StageStarted(stage=stage, images=images))
        if faults is not None and stage in LOOP_STAGES:
            faults(stage, images)

    return begin


def start(config: Config, send: Send) -> "tuple[ModelPool, list[protocol.EngineEvent]]":
    """Load the default model and make its first images; return what the service is to hear.

    Nothing but the pool keeps the model: it may leave memory.

    Raises:
        ServiceError: the model cannot be loaded, with the cure.

    """
    member, opener = _opened(config, send)
    from service.diffusion.loop.trials.trial import to_the_end  # noqa: PLC0415 - it imports torch
    from service.diffusion.pool.background import Background  # noqa: PLC0415 - as above
    from service.diffusion.pool.pool import ModelPool  # noqa: PLC0415 - as above
    from service.diffusion.pool.residents import GIB, Residents  # noqa: PLC0415 - as above

    ready = protocol.EngineReady(model=member.loop.model.info, memory=member.loop.meter.use())
    taught = to_the_end(opener.trial(member.loop))
    faults = FaultFile(Path(config.fault_file)) if config.fault_file else no_fault
    background = Background(most_seconds=config.engine_stall_seconds, fault=faults)
    budget = round(config.host_cache_gb * GIB) or host_memory.total() // 2
    residents = Residents(member, background, host_budget=budget)
    return ModelPool(residents, opener, background), [ready, *taught]


def no_fault(stage: Stage, images: int) -> None:
    """Let a stage go on."""


def load(
    config: Config, send: Send = lambda _said: None
) -> "tuple[StepLoop, protocol.EngineReady]":
    """Load the model that the settings name, without a trial; torch is first imported here.

    From then on ``send`` gets every stage that begins.

    Raises:
        ServiceError: the model cannot be loaded, with the cure.

    """
    loop = _opened(config, send)[0].loop
    return loop, protocol.EngineReady(model=loop.model.info, memory=loop.meter.use())


def _opened(config: Config, send: Send) -> "tuple[Member, Opener]":
    # torch reads both once, when it first looks for GPUs. The order is NVML's, which the
    # service reads the GPU by; CUDA's own puts the fastest card first.
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    os.environ["CUDA_VISIBLE_DEVICES"] = config.cuda_visible_devices
    from service.diffusion.pool.opener import Opener  # noqa: PLC0415 - it imports torch
    from service.models.served.catalog import DEFAULT  # noqa: PLC0415 - only this needs it

    begin = announcing(config, send)
    opener = Opener(config, begin)
    return opener.open(DEFAULT, begin, place=True), opener


def warmed_up(loop: "StepLoop", config: Config) -> list[protocol.EngineEvent]:
    """Make the first images, and return what they taught about memory and batches."""
    from service.diffusion.loop.trials.trial import to_the_end  # noqa: PLC0415 - it imports torch
    from service.diffusion.pool.opener import Opener  # noqa: PLC0415 - as above

    return [*to_the_end(Opener(config, loop.fault).trial(loop))]


def work(channel: EngineChannel, pool: "ModelPool") -> None:
    """Take commands between two steps, and step while there is something to do."""
    while True:
        if not pool.busy and not channel.poll(IDLE_SECONDS):
            pool.tidy()
            # Others may give memory back meanwhile: what was refused for want of it is so no more.
            while not channel.poll(LOOK_SECONDS):
                _tell(channel, pool.news())
        # With nothing to do, wait for a command; else only look whether one is there.
        while channel.poll(0 if pool.busy else None):
            command = channel.receive()
            if isinstance(command, protocol.Shutdown):
                return
            _obey(command, pool)
        _tell(channel, pool.step())
        _tell(channel, pool.news())
        if pool.busy:
            pool.tidy()


def _tell(channel: EngineChannel, said: Iterable[protocol.EngineEvent]) -> None:
    for event in said:
        channel.send(event)


def _obey(command: protocol.Command, pool: "ModelPool") -> None:
    match command:
        case protocol.Generate(job_id=job_id, epoch=epoch, request=request, inputs=inputs):
            pool.add(job_id, request, epoch, inputs)
        case protocol.Cancel(job_id=job_id):
            pool.cancel(job_id)
        case protocol.Interrupt(job_id=job_id):
            pool.interrupt(job_id)
        case protocol.Preview(job_id=job_id, wanted=wanted):
            pool.watch(job_id, wanted=wanted)
        case protocol.LoadModel(model_id=model_id):
            pool.load(model_id)
        case protocol.UnloadModel(model_id=model_id, reason=reason):
            pool.unload(model_id, reason)
