"""A measuring process: takes one order on its standard input, tells what it measured.

Both contenders make the same images with the same sampler, guidance and PNG encoder under the
same limit of memory: the engine through its setting VRAM_LIMIT_GB, the pipeline through torch.
"""

import os
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Final

import msgspec
import torch

from scripts.cards import plain, process
from scripts.cards.measure import ENGINE, PIPELINE, Measured, Order
from service.config import loading
from service.config.limits import limits_of
from service.config.table import Config
from service.core.events import JobFailed, JobFinished, OutOfMemoryHit, Stepped
from service.core.image import RawImage
from service.core.spec import GenerationSpec
from service.diffusion.memory.usage import is_out_of_memory
from service.engine.process import worker
from service.errors import ServiceError
from service.images.encode import png
from service.models import catalog
from service.models.defaults.known import look
from service.system import host_memory
from service.telemetry import logs

PROMPT: Final = "A cozy cabin in the woods"
SAMPLER: Final = "dpmpp_2m"


class Peaks:
    """The most memory that was held; to be asked often, since the engine begins anew by itself."""

    def __init__(self) -> None:
        self.allocated = self.reserved = self.host = 0

    def look(self) -> None:
        """Take note of what was reached since the last time."""
        self.host = max(self.host, host_memory.peak(), host_memory.resident())
        if torch.cuda.is_available():
            self.allocated = max(self.allocated, torch.cuda.max_memory_allocated())
            self.reserved = max(self.reserved, torch.cuda.max_memory_reserved())


class FailedError(Exception):
    """No image came, and why."""


def request(order: Order, config: Config, seed: int) -> GenerationSpec:
    """Return what is asked of either contender."""
    return GenerationSpec(
        prompt=PROMPT,
        **asdict(order.row),
        seed=seed,
        sampler=SAMPLER,
        guidance_scale=limits_of(config, recipe=look(config).recipe).default_guidance_scale,
    )


def engine(order: Order, config: Config, peaks: Peaks) -> Measured:
    """Load, warm up and draw as the service's engine process does, up to the PNG."""
    loop, ready = worker.load(config)
    peaks.look()
    worker.warmed_up(loop, config)
    steps: list[float] = []
    rungs: list[str] = []

    def draw(number: int) -> bytes:
        asked = {f"{seed}": request(order, config, seed) for seed in order.seeds(number)}
        for name, each in asked.items():
            loop.add(name, each)
        files: dict[str, bytes] = {}
        while loop.busy:
            for outcome in loop.step():
                match outcome:
                    case JobFailed(detail=detail):
                        raise FailedError(detail)
                    case JobFinished(job_id=name, images=(image, *_)):
                        files[name] = png(image, asked[name], ready.model.version)
                    case Stepped(seconds=seconds) if number:
                        steps.append(seconds)
                    case OutOfMemoryHit(stage=stage, rung=rung):
                        rungs.append(f"{stage}: {rung}")
            peaks.look()
        return files[f"{number}"]

    return Measured(
        device=ready.model.device,
        gpu=ready.model.gpu,
        dtype=ready.model.dtype,
        load_seconds=ready.model.load_seconds,
        seconds=timed(order, draw),
        step_seconds=median(steps),
        rungs=tuple(dict.fromkeys(rungs)),
    )


def pipeline(order: Order, config: Config, peaks: Peaks) -> Measured:
    """Load and draw with diffusers alone, as its documentation shows it."""
    started = time.perf_counter()
    if config.torch_threads:
        torch.set_num_threads(config.torch_threads)
    source = catalog.resolve(config.model_id, config.model_cache_dir)
    drawer = plain.load(source, config)
    loaded = time.perf_counter() - started
    peaks.look()

    def draw(number: int) -> bytes:
        asked = request(order, config, number)
        image = drawer(
            asked.prompt,
            width=asked.width,
            height=asked.height,
            num_inference_steps=asked.steps,
            guidance_scale=asked.guidance_scale,
            generator=torch.Generator("cpu").manual_seed(number),
        ).images[0]
        pixels = image.tobytes()
        raw = RawImage(width=image.width, height=image.height, pixels=pixels, seed=number)
        file = png(raw, asked, source.version)
        peaks.look()
        return file

    gpu = drawer.device.type == "cuda"
    return Measured(
        device=torch.cuda.get_device_name(drawer.device) if gpu else "cpu",
        gpu=gpu,
        dtype=str(drawer.unet.dtype).removeprefix("torch."),
        load_seconds=loaded,
        seconds=timed(order, draw),
    )


def timed(order: Order, draw: Callable[[int], bytes]) -> tuple[float, ...]:
    """Return the seconds of each round for each image of it; round 0 is not counted."""
    found = []
    for number in range(order.rounds + 1):
        started = time.perf_counter()
        file = draw(number)
        seconds = time.perf_counter() - started
        if number:
            found.append(seconds / order.batch)
        if number and order.folder:
            (Path(order.folder) / f"{number}.png").write_bytes(file)
    return tuple(found)


CONTENDERS: Final = {ENGINE: engine, PIPELINE: pipeline}


def measure(order: Order) -> Measured:
    """Carry an order out; a failure is a result, too."""
    peaks = Peaks()
    try:
        config = loading.load(os.environ)
        logs.configure(config)
        found = CONTENDERS[order.contender](order, config, peaks)
    except (FailedError, ServiceError) as error:
        found = Measured(failure=str(error))
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        line = next(iter(str(error).splitlines()), type(error).__name__)
        found = Measured(failure=f"out of memory: {line}")
    peaks.look()
    return replace(
        found,
        torch=torch.__version__,
        allocated=peaks.allocated,
        reserved=peaks.reserved,
        host=peaks.host,
    )


if __name__ == "__main__":
    process.carry_out(lambda line, tell: tell(measure(msgspec.json.decode(line, type=Order))))
