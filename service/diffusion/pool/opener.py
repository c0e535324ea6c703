"""Opening of models: from their files to a step loop, and the trial images of a new one."""

from functools import cached_property

import torch

from service.config.limits import limits_of
from service.config.table import Config
from service.core.capacity import Capacity
from service.core.events import BatchCalibrated, OutOfMemoryHit, StepBaseline
from service.diffusion.adapters.cache import memory_of
from service.diffusion.adapters.store import GIB, store_of
from service.diffusion.device import chosen_device, chosen_dtype
from service.diffusion.load import load_model
from service.diffusion.loop.step_loop import Fault, StepLoop
from service.diffusion.loop.trials.calibration import calibration
from service.diffusion.loop.trials.trial import Trial
from service.diffusion.loop.trials.warm_up import first_images
from service.diffusion.pool.member import Member
from service.errors import ModelMissing
from service.models import catalog, model_lock, weights
from service.models.adapters.catalog import catalog_of
from service.models.served.catalog import DEFAULT, ModelCatalog
from service.models.served.catalog import catalog_of as models_of
from service.models.source import Source

Taught = list[OutOfMemoryHit | StepBaseline | Capacity | BatchCalibrated]
"""What trial images teach."""


class Opener:
    """Opens models as the settings say; their loops call ``fault`` before each stage."""

    def __init__(self, config: Config, fault: Fault) -> None:
        self._config = config
        self.fault = fault
        self.adapters = memory_of(
            host_budget=round(config.lora_host_gb * GIB),
            device_budget=round(config.lora_gpu_gb * GIB),
        )
        """What the adapters of all models may take together."""

    @cached_property
    def _catalog(self) -> ModelCatalog:
        return models_of(self._config)

    def title(self, name: str) -> str:
        """Return the name of a model for people: the default one has none in requests."""
        return name or self._config.model_id

    def needed(self, name: str) -> int:
        """Return the bytes of a model's weights in memory; 0 if it is not here yet.

        Raises:
            ModelError: there is no such model, or a file of it is damaged.

        """
        source = self._find(name)
        if source.path is None:
            return 0
        config = self._config
        device = chosen_device(config.device, config.cpu_offload, config.vram_limit_gb)
        half = chosen_dtype(config.dtype, device) == torch.float16
        return weights.needed_bytes(source, half=half)

    def open(self, name: str, begin: Fault, *, place: bool = False) -> Member:
        """Read a model; ``begin`` is called as by ``load_model``. It stays in host memory.

        With ``place`` it is brought to the device.

        Raises:
            ServiceError: as ``load_model`` does.

        """
        config = self._config
        model = load_model(self._find(name), config, begin, place=place)
        path = self._find(name).path  # Where it is now, if it had to be fetched.
        adapters = store_of(
            model,
            catalog=catalog_of(config),
            memory=self.adapters,
        )
        limit = config.max_concurrent_requests
        loop = StepLoop(model, batch_limit=limit, fault=self.fault, adapters=adapters)
        seconds = model.info.load_seconds
        member = Member(name=name, loop=loop, load_seconds=seconds)
        if path is not None:
            member.unlock = model_lock.hold(path)
        return member

    def trial(self, loop: StepLoop) -> Trial[Taught]:
        """Make the first images, and return what they taught about memory and batches.

        Raises:
            ModelUnsuitable: the model draws nothing.

        """
        info, limit = loop.model.info, self._config.max_concurrent_requests
        sizes = limits_of(self._config, info.sizes)
        small, usual = sizes.min_size, sizes.default_size
        # The demo is known: its start stays as short as it is.
        large = None if info.demo else usual
        images = first_images(loop, size=small, large=large, batch_limit=limit)
        taught: Taught = [*(yield from images)]
        if self._config.batch_calibration:
            found = yield from calibration(loop, sizes=(usual, small), batch_limit=limit)
            taught += [found] if found is not None else []
        return taught

    def _find(self, name: str) -> Source:
        if name == DEFAULT:
            return catalog.resolve(self._config.model_id, self._config.model_cache_dir)
        found = self._catalog[name]
        if found.source is None or found.id != name:
            raise ModelMissing(found.problem or f"There is no model {name}.")
        if found.source.path is None:  # It was fetched since the engine started, or will be.
            return catalog.resolve(name, self._config.model_cache_dir)
        return found.source
