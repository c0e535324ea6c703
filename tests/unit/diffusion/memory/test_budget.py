from types import SimpleNamespace
from typing import Any

import pytest

from service.core.stage import Stage
from service.diffusion.memory import budget
from service.diffusion.memory.budget import FRESH_SECONDS, ROWS, TILE, MemoryBudget
from service.diffusion.memory.model import MARGIN, MemoryModel

PIXELS = 256 * 256


class Machine:
    """Memory that a test sets, and a clock."""

    def __init__(self, available: int | None) -> None:
        self.free, self.freed, self.now = available, 0, 0.0
        self.taken_next = 0

    def begin(self) -> None:
        pass

    def taken(self) -> int:
        return self.taken_next

    def available(self) -> int | None:
        return self.free

    def monotonic(self) -> float:
        return self.now

    def later(self) -> None:
        """Let a reading grow old."""
        self.now += FRESH_SECONDS


def built(
    monkeypatch: pytest.MonkeyPatch,
    available: int | None,
    *,
    tiles: bool = False,
    blind: bool = False,
) -> tuple[MemoryBudget, Machine, MemoryModel]:
    """Return a budget on a machine, where a row of 256x256 takes 100 bytes and a decode 300."""
    machine: Any = Machine(available)
    monkeypatch.setattr(budget, "time", machine)
    memory = MemoryModel(machine)
    for stage, pixels, taken in ((Stage.DENOISE, PIXELS, 100), (Stage.VAE_DECODE, PIXELS, 300)):
        machine.taken_next = taken
        with memory.measuring(stage, pixels):
            pass
    offloader: Any = SimpleNamespace(freed=lambda _stage: machine.freed)
    found = MemoryBudget(memory, machine, offloader, tiles=tiles, blind=blind)
    return found, machine, memory


@pytest.mark.parametrize(
    ("available", "images"), [(10_000, 4), (4 * 220, 4), (4 * 220 - 1, 3), (441, 2), (100, 1)]
)
def test_images_of_a_step(monkeypatch: pytest.MonkeyPatch, available: int, images: int) -> None:
    """So many share a step as there is memory for, and one is always tried."""
    found, _, _ = built(monkeypatch, available)

    assert found.images(PIXELS, 4) == images


def test_memory_that_nobody_can_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a figure nothing is limited and nothing is said."""
    found, _, _ = built(monkeypatch, None)

    assert found.images(PIXELS, 4) == 4
    assert found.capacity() is None
    assert found.news() is None


def test_sizes_that_were_never_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model without any figures yet is not held back."""
    machine: Any = Machine(10)
    monkeypatch.setattr(budget, "time", machine)
    offloader: Any = SimpleNamespace(freed=lambda _stage: 0)

    assert (
        MemoryBudget(MemoryModel(machine), machine, offloader, tiles=False, blind=False).images(
            PIXELS, 4
        )
        == 4
    )


def test_parts_that_come_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a model that is offloaded anyway no figure means anything: nothing is limited."""
    found, _, _ = built(monkeypatch, 100, blind=True)

    assert found.images(PIXELS, 4) == 4
    assert found.capacity() is None


@pytest.mark.parametrize(("tiles", "share"), [(False, 1.0), (True, TILE)])
def test_capacity(monkeypatch: pytest.MonkeyPatch, *, tiles: bool, share: float) -> None:
    """One image takes its rows in the UNet, and of the decoder what a tile does."""
    found, machine, _ = built(monkeypatch, 5_000, tiles=tiles)
    machine.freed = 70

    capacity = found.capacity()

    assert capacity is not None
    assert capacity.available == 5_000
    assert capacity.need(4 * PIXELS) == {
        Stage.DENOISE: round(MARGIN * ROWS * 400),
        Stage.VAE_DECODE: round(MARGIN * share * 1200),
    }
    assert capacity.need(PIXELS)[Stage.VAE_DECODE] == round(share * 300)
    assert capacity.need(PIXELS // ROWS)[Stage.DENOISE] == 100
    assert capacity.relief == {Stage.DENOISE: 70, Stage.VAE_DECODE: 70}


def test_news(monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of the free memory or of the need is told once; noise and repetition are not."""
    found, machine, memory = built(monkeypatch, 5_000)

    assert found.news() is not None
    assert found.news() is None
    machine.free = 4_900
    machine.later()
    assert found.news() is None
    machine.free = 3_000
    assert found.news() is None
    machine.later()
    assert found.news() is not None
    machine.taken_next = 900
    with memory.measuring(Stage.VAE_DECODE, PIXELS):
        pass
    machine.later()
    assert found.news() is not None
    machine.later()
    assert found.news() is None
