"""Memory: how much there is, what an image takes, and which model gives way to another."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from service.core.stage import Stage

SOONEST_SECONDS: Final = 1.0
"""Since its last use, a model counts as unused for so long at least."""


class AdapterPlace(StrEnum):
    """Memory that holds adapters."""

    GPU = "gpu"
    HOST = "host"


@dataclass(frozen=True, kw_only=True)
class MemoryUse:
    """The engine's own view of its memory, in bytes; on a CPU the GPU figures are 0."""

    allocated: int = 0
    reserved: int = 0
    peak: int = 0
    total: int = 0
    host_resident: int = 0


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """How much memory one image may take beyond the model, and what it will take."""

    available: int
    """Bytes; on a CPU those of the host."""
    needs: Mapping[Stage, tuple[float, float]]
    """By stage: bytes that an image of any size takes, and bytes for each of its pixels."""
    known: Mapping[Stage, Mapping[int, int]] = field(default_factory=dict)
    """By stage and pixels: what images took that were made."""
    relief: Mapping[Stage, int] = field(default_factory=dict)
    """By stage: bytes that become free when the rest of the model leaves the device."""
    model_id: str = ""
    """Model that the numbers are of; empty for the default one."""

    def need(self, pixels: int, places: float = 1) -> dict[Stage, int]:
        """Return the bytes that one image takes, by stage; denoised, it counts as ``places``."""
        shared = {Stage.DENOISE: int(places * pixels)}
        return {stage: self._need(stage, shared.get(stage, pixels)) for stage in self.needs}

    def fits(self, pixels: int, places: float = 1) -> bool:
        """Whether one image can be made, if need be with the last means against a lack."""
        return all(
            need <= self.available + self.relief.get(stage, 0)
            for stage, need in self.need(pixels, places).items()
        )

    @property
    def most_pixels(self) -> float:
        """Pixels of the largest image that can be made."""
        return min((self._most(stage) for stage in self.needs), default=math.inf)

    def _need(self, stage: Stage, pixels: int) -> int:
        fixed, each = self.needs[stage]
        return self.known.get(stage, {}).get(pixels, round(fixed + each * pixels))

    def _most(self, stage: Stage) -> float:
        fixed, each = self.needs[stage]
        room = self.available + self.relief.get(stage, 0) - fixed
        if each > 0:
            return max(room, 0) / each
        return math.inf if room >= 0 else 0


@dataclass(kw_only=True)
class Resident:
    """A model in memory."""

    size: int
    """Bytes."""
    load_seconds: float
    """To have it back where it is."""
    used: float
    """When its last job ended or it was loaded, on any clock."""

    def value(self, now: float) -> float:
        """Return what keeping it is worth: the seconds to load it, by those that nobody used it.

        The chance that it is asked for soon falls as one over the time without use, which makes
        this the expected cost of a reload (GreedyDual, Cao and Irani 1997, with that aging).
        """
        return self.load_seconds / max(now - self.used, SOONEST_SECONDS)


def giving_way(
    lack: int, held: Mapping[str, Resident], *, keep: Collection[str], now: float
) -> list[str] | None:
    """Return the models to evict for ``lack`` more bytes, the least valuable first.

    None where all that are not in ``keep`` would not suffice: then no model has to go.
    """
    chosen: list[str] = []
    for name in sorted(held.keys() - keep, key=lambda name: (held[name].value(now), name)):
        if lack <= 0:
            break
        chosen.append(name)
        lack -= held[name].size
    if lack > 0:
        return None
    # One that was taken early may have become needless by a larger one that followed.
    for name in reversed(chosen[:-1]):
        if lack + held[name].size <= 0:
            chosen.remove(name)
            lack += held[name].size
    return chosen
