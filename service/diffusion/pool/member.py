"""A model in memory: its step loop, and its weights on the device or parked in host memory."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import torch

from service.core.capacity import Resident
from service.diffusion.loop.step_loop import StepLoop
from service.diffusion.memory.offloader import move, size_of

HOST: Final = torch.device("cpu")


@dataclass(kw_only=True, eq=False)
class Member(Resident):
    """A model with its step loop; the size is that of its weights as they lie in memory."""

    size: int = field(init=False)
    name: str
    """What requests call it; empty for the default model."""
    loop: StepLoop
    unlock: Callable[[], None] = lambda: None
    """Says that its files are used no more."""
    used: float = 0.0
    spent: float = 0.0
    """Seconds of the turns that it had: who had the least is next."""
    told: int = 0
    """Bytes of idle models that its last reported capacity counts as free."""

    def __post_init__(self) -> None:
        """Measure the weights."""
        self.size = sum(size_of(part) for part in self._parts)

    @property
    def movable(self) -> bool:
        """Whether its weights can be parked: it computes elsewhere than in the host's memory."""
        return self.loop.model.device != HOST and not self.loop.model.offloaded

    def place(self) -> None:
        """Bring all weights to the device."""
        for part in self._parts:
            move(part, self.loop.model.device)

    def park(self) -> None:
        """Bring all weights to host memory; ``leave_device`` of the adapters comes before."""
        for part in self._parts:
            move(part, HOST)

    def leave(self) -> None:
        """Let go of all that is kept for it: it is no more."""
        self.loop.adapters.close()
        self.unlock()

    def need(self, pixels: int | None = None, places: float = 1) -> int:
        """Return the bytes that an image takes, by default one of the usual size; 0 if unknown."""
        capacity = self.loop.budget.capacity()
        if capacity is None:
            return 0
        area = self.loop.model.info.sizes.usual**2 if pixels is None else pixels
        return max(capacity.need(area, places).values(), default=0)

    @property
    def _parts(self) -> list[torch.nn.Module]:
        family = self.loop.model.family
        found = [*family.networks.values()]
        return found if family.small_decoder is None else [*found, family.small_decoder]
