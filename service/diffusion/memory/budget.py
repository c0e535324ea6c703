"""How many images fit into memory: what is free against what they take."""

import time
from typing import Final

from service.core.capacity import Capacity
from service.core.stage import Stage
from service.diffusion.memory.model import MARGIN, MemoryModel
from service.diffusion.memory.offloader import Offloader
from service.diffusion.memory.usage import Meter

ROWS: Final = 2
"""Of an image in the UNet's batch, under guidance; without it there is one."""

TILE: Final = 0.1
"""Part of the VAE's memory that the smallest tiles take: a sixteenth, and the whole image."""

FRESH_SECONDS: Final = 1.0
"""How long a reading of the free memory is used."""

NEWS: Final = 0.05
"""Change of the free memory, or of what an image takes, that is worth telling."""


class MemoryBudget:
    """Compares the free memory with the need of images; asked between two steps."""

    def __init__(
        self,
        model: MemoryModel,
        meter: Meter,
        offloader: Offloader,
        *,
        tiles: bool,
        blind: bool,
        side: int = 512,
    ) -> None:
        """Set up.

        ``blind``: parts come and go inside the stages, so no figure means anything. ``side`` is
        that of the image whose change of need is watched.
        """
        self._model, self._meter, self._offloader = model, meter, offloader
        self._blind = blind
        self._tiles = tiles
        self._watched = side * side
        self._available: int | None = None
        self._read = float("-inf")
        self._asked = float("-inf")
        self._sent: Capacity | None = None

    def images(self, pixels: int, most: int) -> int:
        """Return how many images of a size may share a step, from 1 to ``most``."""
        available = self._now()
        if available is None:
            return most
        for count in range(most, 1, -1):
            need = self._model.bytes(Stage.DENOISE, ROWS * pixels * count)
            if need is None or need <= available:
                return count
        return 1

    def capacity(self) -> Capacity | None:
        """Return what can be said of one image; None where nothing tells."""
        available = self._now()
        if available is None:
            return None
        needs, known = {}, {}
        tile = TILE if self._tiles else 1
        for stage, (fixed, each) in self._model.fits.items():
            rows = ROWS if stage == Stage.DENOISE else 1
            part = tile if stage in (Stage.VAE_ENCODE, Stage.VAE_DECODE) else 1
            needs[stage] = MARGIN * fixed * part, MARGIN * each * rows * part
            seen = self._model.seen[stage].items()
            known[stage] = {pixels // rows: round(taken * part) for pixels, taken in seen}
        relief = {stage: self._offloader.freed(stage) for stage in needs}
        return Capacity(available=available, needs=needs, known=known, relief=relief)

    def news(self) -> Capacity | None:
        """Return the capacity if it is another than the last one returned here.

        Asked more often than the free memory is read it returns None.
        """
        now = time.monotonic()
        if now - self._asked < FRESH_SECONDS:
            return None
        self._asked = now
        capacity = self.capacity()
        if capacity is None or (
            self._sent is not None and _alike(self._sent, capacity, self._watched)
        ):
            return None
        self._sent = capacity
        return capacity

    def _now(self) -> int | None:
        if self._blind:
            return None
        now = time.monotonic()
        if now - self._read >= FRESH_SECONDS:
            self._available, self._read = self._meter.available(), now
        return self._available


def _alike(old: Capacity, new: Capacity, pixels: int) -> bool:
    was, now = old.need(pixels), new.need(pixels)
    return was.keys() == now.keys() and all(
        abs(a - b) <= NEWS * max(a, b, 1)
        for a, b in [(old.available, new.available), *((was[s], now[s]) for s in was)]
    )
