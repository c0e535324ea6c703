"""Actions to recover from an out-of-memory, one after the other."""

import time
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

import torch

from service.core.events import OutOfMemoryHit
from service.core.stage import OomRung, Stage
from service.diffusion.load import Model
from service.diffusion.memory.offloader import Offloader
from service.diffusion.memory.tiles import SMALLEST_ENCODED, Tiles
from service.diffusion.memory.usage import free_cache, is_of_onednn, is_out_of_memory, kernels

T = TypeVar("T")

PLAIN: Final = (OomRung.FREE_CACHE, OomRung.OFFLOAD)
TILED: Final = (OomRung.FREE_CACHE, OomRung.VAE_TILING, OomRung.VAE_TILING, OomRung.OFFLOAD)
ACTIONS: Final[Mapping[Stage, tuple[OomRung, ...]]] = {
    Stage.TEXT_ENCODE: PLAIN,
    Stage.VAE_ENCODE: TILED,
    Stage.DENOISE: PLAIN,
    Stage.VAE_DECODE: TILED,
    Stage.SAFETY: PLAIN,
}
"""From the cheapest to the dearest; tiles are made smaller once. The VAE takes images one at a
time anyway, so there is nothing that slicing its batch could save."""

BATCH_ACTIONS: Final = (OomRung.FREE_CACHE,)
"""For several images at once: splitting them costs less than moving weights away."""


class OomRecovery:
    """Repeats work that ran out of memory, each time with more memory free.

    ``tiles`` and ``offloader`` hold what the actions ``vae_tiling`` and ``offload`` changed,
    for the work that follows. Every out-of-memory is passed to ``report``, with the action
    that is tried next (label ``rung`` in the metrics).
    """

    def __init__(self, model: Model, report: Callable[[OutOfMemoryHit], None]) -> None:
        factor = model.family.limits.scale_factor
        decoder, above = model.family.decoder, model.vae_tiling_above
        self.tiles = {
            Stage.VAE_ENCODE: Tiles(decoder, factor, above=above, smallest=SMALLEST_ENCODED),
            Stage.VAE_DECODE: Tiles(decoder, factor, above=above),
        }
        self.offloader = Offloader(model.family.parts, model.device, fixed=model.offloaded)
        self.lost = 0.0
        """Seconds of work that ran out of memory, of all time: no stage counts them."""
        self._device = model.device
        self._report = report

    def run(
        self,
        stage: Stage,
        work: Callable[[], T],
        *,
        images: int = 1,
        latents: torch.Size | None = None,
        once: bool = False,
    ) -> T:
        """Do a stage's work for so many images, again after each action that frees memory.

        With ``once`` it is not repeated, because it changes what it works on.

        Raises:
            Exception: what the work raised: an out-of-memory when no action is left. Where
                there were several images the caller splits them, as the report says.

        """
        actions = iter(() if once else ACTIONS[stage] if images == 1 else BATCH_ACTIONS)
        onednn = True
        while True:
            started = time.perf_counter()
            try:
                self.offloader.bring(stage)
                with kernels(onednn=onednn):
                    return work()
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                last = OomRung.FAIL if images == 1 else OomRung.SPLIT_BATCH
                action = next(
                    (each for each in actions if self._possible(stage, each, latents)), last
                )
                self._note(stage, images, action, started)
                if action == last:
                    raise
                onednn = onednn and not is_of_onednn(error)
            # Outside the handler: the error's frames keep the tensors alive that did not fit.
            self._apply(stage, action, latents)

    def _possible(self, stage: Stage, action: OomRung, latents: torch.Size | None) -> bool:
        match action:
            case OomRung.VAE_TILING:
                return latents is not None and self.tiles[stage].possible(latents)
            case OomRung.OFFLOAD:
                return self.offloader.possible
        return True

    def _apply(self, stage: Stage, action: OomRung, latents: torch.Size | None) -> None:
        if action == OomRung.VAE_TILING and latents is not None:
            self.tiles[stage].begin(latents)
        elif action == OomRung.OFFLOAD:
            self.offloader.begin()
        free_cache(self._device)

    def _note(self, stage: Stage, images: int, action: OomRung, started: float) -> None:
        seconds = time.perf_counter() - started
        self.lost += seconds
        self._report(OutOfMemoryHit(stage=stage, batch_size=images, rung=action, seconds=seconds))
