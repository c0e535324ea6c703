"""Engines on this machine: a process for each GPU, or as many as are asked for on a CPU."""

import os
from dataclasses import replace
from typing import Final

from service.config.table import Config
from service.engine.process import parent
from service.engine.source import FixedEngines
from service.gpu import nvml, torch_build
from service.gpu.card import NoCardError, look
from service.system import host_memory

GIB: Final = 2**30


def engines_of(config: Config) -> FixedEngines:
    """Return the engines that the settings ask for; nothing starts yet."""
    return FixedEngines([parent.ProcessEngine(each) for each in configs(config)])


def configs(config: Config) -> list[Config]:
    """Return the settings of each engine: its own GPU, and its share of cores and host memory."""
    gpus = nvml.names(config.cuda_visible_devices) if config.device != "cpu" else ()
    count = config.engines or (len(gpus) if len(gpus) > 1 and _computes(config, gpus[0]) else 1)
    if count == 1:
        return [replace(config, cuda_visible_devices=gpus[0] if gpus else "")]
    return [
        replace(share(config, count), cuda_visible_devices=gpus[number % len(gpus)] if gpus else "")
        for number in range(count)
    ]


def share(config: Config, count: int) -> Config:
    """Return the settings of one of ``count`` engines on a machine: its cores and host memory."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = config.torch_threads or max(1, (cores or 1) // count)
    cache = config.host_cache_gb or host_memory.total() / 2 / GIB
    return replace(config, torch_threads=threads, host_cache_gb=cache / count)


def _computes(config: Config, gpu: str) -> bool:
    """Return whether the engine will compute on a GPU, as far as is known without torch."""
    build = torch_build.installed()
    if config.device == "cuda" or build is None or build.other:
        return True
    try:
        look(gpu)
    except NoCardError:
        return False
    return build.cuda is not None
