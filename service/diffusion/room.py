"""How many pictures fit into memory: what is free against what they take."""

import time
from typing import Final

from service.diffusion.footprint import MARGIN, Footprint
from service.diffusion.generation import Capacity
from service.diffusion.memory import Meter
from service.diffusion.parking import Parking

ROWS: Final = 2
"""Of a picture in the UNet's batch, under guidance; without it there is one."""

TILE: Final = 0.1
"""Part of a decode's memory that the smallest tiles take: a sixteenth, and the whole picture."""

FRESH_SECONDS: Final = 1.0
"""How long a reading of the free memory is used."""

NEWS: Final = 0.05
"""Change of the free memory, or of what a picture takes, that is worth telling."""

REFERENCE: Final = 512 * 512
"""Pixels of the picture whose change of need is watched."""


class Room:
    """Compares the free memory with the footprint of pictures; asked between two steps."""

    def __init__(
        self, footprint: Footprint, meter: Meter, parking: Parking, *, tiles: bool, blind: bool
    ) -> None:
        """Set up; ``blind``: parts come and go inside the stages, so no figure means anything."""
        self._footprint, self._meter, self._parking = footprint, meter, parking
        self._blind = blind
        self._tiles = tiles
        self._available: int | None = None
        self._read = float("-inf")
        self._asked = float("-inf")
        self._told: Capacity | None = None

    def pictures(self, pixels: int, most: int) -> int:
        """Return how many pictures of a size may share a step, from 1 to ``most``."""
        available = self._now()
        if available is None:
            return most
        for count in range(most, 1, -1):
            need = self._footprint.bytes("denoise", ROWS * pixels * count)
            if need is None or need <= available:
                return count
        return 1

    def capacity(self) -> Capacity | None:
        """Return what can be said of one picture; None where nothing tells."""
        available = self._now()
        if available is None:
            return None
        needs, known = {}, {}
        tile = TILE if self._tiles else 1
        for stage, (fixed, each) in self._footprint.fits.items():
            rows = ROWS if stage == "denoise" else 1
            part = tile if stage == "vae_decode" else 1
            needs[stage] = MARGIN * fixed * part, MARGIN * each * rows * part
            seen = self._footprint.seen[stage].items()
            known[stage] = {pixels // rows: round(taken * part) for pixels, taken in seen}
        relief = {stage: self._parking.freed(stage) for stage in needs}
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
        if capacity is None or (self._told is not None and _alike(self._told, capacity)):
            return None
        self._told = capacity
        return capacity

    def _now(self) -> int | None:
        if self._blind:
            return None
        now = time.monotonic()
        if now - self._read >= FRESH_SECONDS:
            self._available, self._read = self._meter.available(), now
        return self._available


def _alike(old: Capacity, new: Capacity) -> bool:
    was, now = old.need(REFERENCE), new.need(REFERENCE)
    return was.keys() == now.keys() and all(
        abs(a - b) <= NEWS * max(a, b, 1)
        for a, b in [(old.available, new.available), *((was[s], now[s]) for s in was)]
    )
