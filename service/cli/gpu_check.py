"""Whether the GPU and its driver can carry the model, checked before torch is loaded."""

from service.config.table import Config
from service.errors import ConfigError, GpuBusy, GpuMissing, GpuTooSmall, ModelError, TorchMismatch
from service.gpu import nvml, torch_build
from service.gpu.card import GIB, Card, NoCardError, demand_limit, look, warn_of_cpu
from service.gpu.torch_build import TorchBuild
from service.models import weights
from service.models.source import Source


def check(config: Config, source: Source) -> None:
    """Refuse a GPU, a driver or a torch that the model cannot run with; say so of a CPU.

    Raises:
        GpuMissing: one is asked for, and there is none; or one of several is missing.
        TorchMismatch: this torch does not fit the GPU or its driver.
        GpuTooSmall, GpuBusy: the weights alone do not fit into its memory, or not now.
        ConfigError: VRAM_LIMIT_GB is more than it has; or there are more engines than GPUs.

    """
    build = torch_build.installed()
    if config.device == "cpu" or build is None or build.other:
        return
    demanded = config.device == "cuda" or config.cpu_offload != "none" or config.vram_limit_gb > 0
    first, *others = nvml.names(config.cuda_visible_devices) or ("",)
    try:
        card = look(first)
    except NoCardError as error:
        if demanded:
            raise GpuMissing(f"{_demand(config)}: {error} Or set DEVICE=cpu.") from error
        warn_of_cpu(str(error))
        return
    if card is None:
        return  # Only CUDA itself can tell.
    if build.cuda is None:
        said = (
            f"torch {build.version} cannot use {card.name}: it is built for CPUs. "
            f"{torch_build.cure(card.capability)}"
        )
        if demanded:
            raise TorchMismatch(f"{_demand(config)}: {said}")
        warn_of_cpu(said)
        return
    if config.engines > 1 + len(others):
        raise ConfigError(
            f"ENGINES={config.engines}: each engine needs a GPU of its own, and "
            f"CUDA_VISIBLE_DEVICES={config.cuda_visible_devices} names {1 + len(others)}; set it "
            "to 0."
        )
    for each in (card, *(_other(name, config) for name in others)):
        if each is not None:
            _demand_fit(config, source, each, build)


def _other(name: str, config: Config) -> Card | None:
    """Return a further GPU; one that is named and missing is refused, whatever ``DEVICE`` is.

    Its engine would compute on the CPU, next to those that have a GPU.
    """
    try:
        return look(name)
    except NoCardError as error:
        asked = f"CUDA_VISIBLE_DEVICES={config.cuda_visible_devices}"
        raise GpuMissing(f"{asked}: GPU {name}: {error}") from error


def _demand_fit(config: Config, source: Source, card: Card, build: TorchBuild) -> None:
    _demand_driver(card, build)
    if card.total is not None:
        demand_limit(config.vram_limit_gb, card.total, card.name)
    if config.cpu_offload == "none":
        _demand_memory(config, source, card)


def _demand_driver(card: Card, build: TorchBuild) -> None:
    wanted = build.cuda[0] if build.cuda else 0
    if card.cuda is not None and card.cuda < wanted:
        raise TorchMismatch(
            f"torch {build.version} needs a driver for CUDA {wanted}, and the driver of "
            f"{card.name} supports CUDA {card.cuda}. "
            f"{torch_build.older_driver_cure(card.driver, build)}"
        )


def _demand_memory(config: Config, source: Source, card: Card) -> None:
    if source.path is None or card.total is None or card.used is None:
        return
    try:
        need = weights.needed_bytes(source, half=config.dtype != "float32")
    except ModelError:
        return  # Loading tells it, and the service stays to say so.
    limit = config.vram_limit_gb
    if 0 < limit * GIB < need <= card.total:
        raise GpuTooSmall(
            f"the weights of {source.id} take {need / GIB:.1f} GB, and VRAM_LIMIT_GB={limit:g} "
            "allows less. Raise it, or set CPU_OFFLOAD=model (or sequential), DTYPE=float16, or a "
            "smaller model."
        )
    if need > card.total:
        raise GpuTooSmall(
            f"the weights of {source.id} take {need / GIB:.1f} GB, and {card.name} has "
            f"{card.total / GIB:.1f} GB. Set CPU_OFFLOAD=model (or sequential), DTYPE=float16, or "
            "a smaller model."
        )
    if need > card.total - card.used:
        raise GpuBusy(
            f"the weights of {source.id} take {need / GIB:.1f} GB, and {card.used / GIB:.1f} of "
            f"the {card.total / GIB:.1f} GB of {card.name} are taken. End what holds them "
            "('nvidia-smi' lists it), or choose another GPU with CUDA_VISIBLE_DEVICES."
        )


def _demand(config: Config) -> str:
    if config.device == "cuda":
        return "DEVICE=cuda"
    if config.vram_limit_gb:
        return f"VRAM_LIMIT_GB={config.vram_limit_gb:g}"
    return f"CPU_OFFLOAD={config.cpu_offload}"
