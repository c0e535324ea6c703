"""Keeping the parts of a model that rest in host memory, when the device's runs out."""

from collections.abc import Mapping
from typing import Any, Final

import structlog
import torch

from service.diffusion.memory import free_cache, is_out_of_memory

log = structlog.get_logger(__name__)

PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "text_encode": ("text_encoder", "text_encoder_2"),
    "denoise": ("unet",),
    "vae_decode": ("vae",),
    "safety": ("safety_checker",),
}
"""What each stage computes with."""

TRIED_AGAIN_AFTER: Final = 20
"""Pictures before everything comes back to the device: memory may have become free."""


class Parking:
    """Where the parts of a model are: all on the device, or only those of the running stage.

    Slower, because each stage brings its part over the bus; so it is the last thing tried,
    and given up after a while. ``fixed`` says that the settings offload parts already.
    """

    def __init__(
        self,
        pipeline: Any,
        home: torch.device,
        *,
        away: torch.device | None = None,
        fixed: bool = False,
    ) -> None:
        self._parts = {
            name: part
            for names in PARTS.values()
            for name in names
            if (part := getattr(pipeline, name, None)) is not None
        }
        self._sizes = {name: _size(part) for name, part in self._parts.items()}
        self._home, self._away = home, away or torch.device("cpu")
        self._fixed = fixed
        self._stage = "denoise"
        """Whose parts are on the device while it is in use."""
        self._left = 0
        """Pictures until it ends; 0 when it is not in use."""

    @property
    def used(self) -> bool:
        """Whether only the running stage's parts are on the device."""
        return self._left > 0

    @property
    def possible(self) -> bool:
        """Whether beginning it would free anything."""
        return not self.used and not self._fixed and self._home != self._away

    def freed(self, stage: str) -> int:
        """Return the bytes that become free when ``stage`` has the device for itself."""
        if self._fixed or self._home == self._away:
            return 0
        here = self._sizes.keys() if not self.used else set(PARTS[self._stage]) & set(self._sizes)
        leave = sum(self._sizes[name] for name in here if name not in PARTS[stage])
        come = sum(size for name, size in self._sizes.items() if name in PARTS[stage])
        missing = come - sum(self._sizes[name] for name in here if name in PARTS[stage])
        return max(leave - missing, 0)

    def begin(self) -> None:
        """Let parts rest in host memory from the next stage on."""
        self._left = TRIED_AGAIN_AFTER
        log.warning("offload_began", resting=sorted(self._parts))

    def bring(self, stage: str) -> None:
        """Have a stage's parts on the device, and no others while memory is short."""
        if not self.used:
            return
        self._stage = stage
        for name, part in self._parts.items():
            if name not in PARTS[stage]:
                _move(part, self._away)
        for name in PARTS[stage]:
            if name in self._parts:
                _move(self._parts[name], self._home)

    def picture_made(self) -> None:
        """Count a picture; after many of them have everything on the device again."""
        if not self.used:
            return
        self._left -= 1
        if self._left > 0:
            return
        try:
            for part in self._parts.values():
                _move(part, self._home)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            self._left = TRIED_AGAIN_AFTER
        else:
            log.info("offload_ended")
            return
        free_cache(self._home)


def _move(part: torch.nn.Module, where: torch.device) -> None:
    # Parameters made in inference mode could not be used outside it any more.
    with torch.inference_mode(mode=False), torch.no_grad():
        part.to(where)


def _size(part: torch.nn.Module) -> int:
    return sum(t.numel() * t.element_size() for t in (*part.parameters(), *part.buffers()))
