"""Parts of a model in host memory while the device's is short."""

from collections.abc import Mapping
from typing import Final

import structlog
import torch

from service.core.stage import Stage
from service.diffusion.memory.usage import free_cache, is_out_of_memory

log = structlog.get_logger(__name__)

TRIED_AGAIN_AFTER: Final = 20
"""Images before everything comes back to the device: memory may have become free."""


class Offloader:
    """Keeps all parts of a model on the device, or only those of the running stage.

    The latter is slower, because each stage brings its part over the bus; so it is the last
    action tried, and given up after a while. ``stages`` holds the parts by the stage that
    computes with them; ``fixed`` says that the settings offload parts already.
    """

    def __init__(
        self,
        stages: Mapping[Stage, Mapping[str, torch.nn.Module]],
        device: torch.device,
        *,
        host: torch.device | None = None,
        fixed: bool = False,
    ) -> None:
        self._stages = stages
        self._parts = {name: part for named in stages.values() for name, part in named.items()}
        self._sizes = {name: size_of(part) for name, part in self._parts.items()}
        self._device, self._host = device, host or torch.device("cpu")
        self._fixed = fixed
        self._stage = Stage.DENOISE
        """Whose parts are on the device while it is in use."""
        self._left = 0
        """Images until it ends; 0 when it is not in use."""

    @property
    def used(self) -> bool:
        """Whether only the running stage's parts are on the device."""
        return self._left > 0

    @property
    def possible(self) -> bool:
        """Whether beginning it would free anything."""
        return not self.used and not self._fixed and self._device != self._host

    def freed(self, stage: Stage) -> int:
        """Return the bytes that become free when ``stage`` has the device for itself."""
        if self._fixed or self._device == self._host:
            return 0
        wanted = sum(self._sizes[name] for name in self._stages[stage])
        present = self._stages[self._stage] if self.used else self._parts
        return max(sum(self._sizes[name] for name in present) - wanted, 0)

    def begin(self) -> None:
        """Keep parts in host memory from the next stage on."""
        self._left = TRIED_AGAIN_AFTER
        log.warning("offload_began", resting=sorted(self._parts))

    def bring(self, stage: Stage) -> None:
        """Move a stage's parts to the device, and all others off it, while memory is short."""
        if not self.used:
            return
        self._stage = stage
        for name, part in self._parts.items():
            if name not in self._stages[stage]:
                move(part, self._host)
        for part in self._stages[stage].values():
            move(part, self._device)

    def image_done(self) -> None:
        """Count an image; after many of them move everything to the device again."""
        if not self.used:
            return
        self._left -= 1
        if self._left > 0:
            return
        try:
            for part in self._parts.values():
                move(part, self._device)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            self._left = TRIED_AGAIN_AFTER
        else:
            log.info("offload_ended")
            return
        free_cache(self._device)


def move(part: torch.nn.Module, where: torch.device) -> None:
    """Move a network in place."""
    # Parameters made in inference mode could not be used outside it any more.
    with torch.inference_mode(mode=False), torch.no_grad():
        part.to(where)


def size_of(part: torch.nn.Module) -> int:
    """Return the bytes of a network's weights."""
    return sum(t.numel() * t.element_size() for t in (*part.parameters(), *part.buffers()))
