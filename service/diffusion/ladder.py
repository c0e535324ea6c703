"""What is tried when memory runs out, one rung after the other."""

import time
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

import torch

from service.diffusion.generation import OutOfMemoryHit
from service.diffusion.load import Model
from service.diffusion.memory import free_cache, is_of_onednn, is_out_of_memory, kernels
from service.diffusion.parking import Parking
from service.diffusion.tiles import Tiles

T = TypeVar("T")

RUNGS: Final[Mapping[str, tuple[str, ...]]] = {
    "text_encode": ("free_cache", "offload"),
    "denoise": ("free_cache", "offload"),
    "vae_decode": ("free_cache", "vae_tiling", "vae_tiling", "offload"),
    "safety": ("free_cache", "offload"),
}
"""From the cheapest to the dearest; tiles are made smaller once. Pictures are decoded one at a
time anyway, so there is nothing that slicing the VAE's batch could save."""

BATCH_RUNGS: Final = ("free_cache",)
"""For several pictures at once: splitting them costs less than moving weights away."""


class Ladder:
    """Repeats work that ran out of memory, each time with more memory free.

    ``tiles`` and ``parking`` are the state that the rungs ``vae_tiling`` and ``offload``
    leave behind, for work to look at. Every out-of-memory is told to ``report``, with the
    rung that is tried next.
    """

    def __init__(self, model: Model, report: Callable[[OutOfMemoryHit], None]) -> None:
        self.tiles = Tiles(
            model.pipeline.vae, model.pipeline.vae_scale_factor, above=model.vae_tiling_above
        )
        self.parking = Parking(model.pipeline, model.device, fixed=model.offloaded)
        self.lost = 0.0
        """Seconds of work that ran out of memory, of all time: no stage counts them."""
        self._device = model.device
        self._report = report

    def climb(
        self,
        stage: str,
        work: Callable[[], T],
        *,
        pictures: int = 1,
        latents: torch.Tensor | None = None,
    ) -> T:
        """Do a stage's work for so many pictures; what it does must be repeatable.

        Raises:
            Exception: what the work raised: an out-of-memory when no rung is left. Where
                there were several pictures the caller splits them, and says so by that rung.

        """
        rungs = iter(RUNGS[stage] if pictures == 1 else BATCH_RUNGS)
        onednn = True
        while True:
            started = time.perf_counter()
            try:
                self.parking.bring(stage)
                with kernels(onednn=onednn):
                    return work()
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                last = "fail" if pictures == 1 else "split_batch"
                rung = next((r for r in rungs if self._possible(r, latents)), last)
                self._note(stage, pictures, rung, started)
                if rung == last:
                    raise
                onednn = onednn and not is_of_onednn(error)
            # Outside the handler: the error's frames keep the tensors alive that did not fit.
            self._apply(rung, latents)

    def once(self, stage: str, work: Callable[[], T]) -> T:
        """Do a picture's work that cannot be repeated, because it changes what it works on.

        Raises:
            Exception: what the work raised.

        """
        started = time.perf_counter()
        try:
            return work()
        except Exception as error:
            if is_out_of_memory(error):
                self._note(stage, 1, "fail", started)
            raise

    def _possible(self, rung: str, latents: torch.Tensor | None) -> bool:
        match rung:
            case "vae_tiling":
                return latents is not None and self.tiles.possible(latents)
            case "offload":
                return self.parking.possible
        return True

    def _apply(self, rung: str, latents: torch.Tensor | None) -> None:
        if rung == "vae_tiling" and latents is not None:
            self.tiles.begin(latents)
        elif rung == "offload":
            self.parking.begin()
        free_cache(self._device)

    def _note(self, stage: str, pictures: int, rung: str, started: float) -> None:
        seconds = time.perf_counter() - started
        self.lost += seconds
        self._report(OutOfMemoryHit(stage=stage, batch_size=pictures, rung=rung, seconds=seconds))
