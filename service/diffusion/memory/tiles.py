"""Encoding and decoding in tiles what does not fit into memory whole."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import structlog
import torch

log = structlog.get_logger(__name__)

SMALLEST: Final = 8
"""Latents along a tile: below that the overlap, an eighth of it, is less than one."""

SMALLEST_ENCODED: Final = 16
"""Of a tile that is encoded: AutoencoderTiny divides by the overlap, less one."""

MOST_PARTS: Final = 4
"""Of the longer side: more of them cost more in overlap than they save."""

TRIED_AGAIN_AFTER: Final = 20
"""Images in tiles before a whole one is tried again: memory may have become free."""

NEEDED: Final = ("use_tiling", "tile_latent_min_size", "tile_sample_min_size")


class Tiles:
    """Which images a VAE encodes or decodes in tiles: above a size, and what did not fit whole.

    A tile has half the image's longer side, so that it takes about a quarter of the
    memory; or a quarter of the side, if even that did not fit. Above the size that was set
    (VAE_TILING_ABOVE) a tile has that size, if it was not halved since. diffusers blends the seams.
    Such an image differs a little from a whole one, since the VAE's normalisation sees a part of
    it only.
    """

    def __init__(
        self, decoder: Any, factor: int, *, above: int = 0, smallest: int = SMALLEST
    ) -> None:
        self._decoder = decoder
        self._smallest = smallest
        """Latents along the smallest tile. Sides are multiples of its half: the overlap, a quarter
        or an eighth of a side, is whole latents then, and the parts add up to the image."""
        self._factor = factor
        """Pixels to a latent along a side."""
        self._above = above // factor
        """Latents along the longest side of an image that is taken whole; 0 for any."""
        self._from: int | None = None
        """Latents of the smallest image that is taken in tiles."""
        self._left = 0
        if above and not self.able:
            log.warning("vae_tiling_unsupported", vae=type(decoder).__name__)
        self._parts = 1
        """Tiles along the longer side, were there no overlap."""

    @property
    def able(self) -> bool:
        """Whether this VAE works in tiles."""
        return all(hasattr(self._decoder, name) for name in NEEDED)

    def possible(self, latents: torch.Size) -> bool:
        """Tell whether tiles, or smaller ones, would help an image."""
        parts = self._parts if self._halved(latents) else 1
        divisible = self._side(latents, parts) > self._smallest
        return self.able and divisible and parts < MOST_PARTS

    def used(self, latents: torch.Size) -> bool:
        """Tell whether an image is taken in tiles now."""
        return self._halved(latents) or self._beyond(latents)

    def begin(self, latents: torch.Size) -> None:
        """Take images of this size and larger ones in tiles for a while, or in smaller ones."""
        self._parts = 2 * self._parts if self._halved(latents) else 2
        area = _area(latents)
        self._from = area if self._from is None else min(area, self._from)
        self._left = TRIED_AGAIN_AFTER
        log.warning("vae_tiling_began", latents=list(latents[-2:]))

    @contextmanager
    def applied(self, latents: torch.Size) -> Iterator[bool]:
        """Work on an image within this, in tiles if it needs them; tell whether it is whole."""
        if not self.used(latents):
            yield True
            return
        before = {name: getattr(self._decoder, name) for name in NEEDED}
        halved = self._halved(latents)
        most = max(self._smallest, self._above - self._above % (self._smallest // 2))
        side = self._side(latents, self._parts) if halved else most
        if self._beyond(latents):
            side = min(side, most)
        if before["use_tiling"]:
            side = min(side, before["tile_latent_min_size"])
        chosen = dict(zip(NEEDED, (True, side, side * self._factor), strict=True))
        if hasattr(self._decoder, "spatial_scale_factor"):
            # AutoencoderTiny has 8 there, whatever its own factor is.
            before["spatial_scale_factor"] = self._decoder.spatial_scale_factor
            chosen["spatial_scale_factor"] = self._factor
        try:
            for name, value in chosen.items():
                setattr(self._decoder, name, value)
            yield False
        finally:
            for name, value in before.items():
                setattr(self._decoder, name, value)
        if halved:
            self._left -= 1
            if self._left == 0:
                self._from = None

    def _halved(self, latents: torch.Size) -> bool:
        """Tell whether an image, or a smaller one, did not fit lately."""
        return self._from is not None and _area(latents) >= self._from

    def _beyond(self, latents: torch.Size) -> bool:
        return bool(self._above) and self.able and max(latents[-2:]) > self._above

    def _side(self, latents: torch.Size, parts: int) -> int:
        grain = self._smallest // 2
        return max(self._smallest, math.ceil(max(latents[-2:]) / parts / grain) * grain)


def _area(latents: torch.Size) -> int:
    return latents[-2] * latents[-1]
