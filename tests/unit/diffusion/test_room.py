from types import SimpleNamespace
from typing import Any

import pytest

from service.diffusion import room
from service.diffusion.footprint import MARGIN, Footprint
from service.diffusion.room import FRESH_SECONDS, ROWS, TILE, Room

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
) -> tuple[Room, Machine, Footprint]:
    """Return a room on a machine, where a row of 256x256 takes 100 bytes and a decode 300."""
    machine: Any = Machine(available)
    monkeypatch.setattr(room, "time", machine)
    footprint = Footprint(machine)
    for stage, pixels, taken in (("denoise", PIXELS, 100), ("vae_decode", PIXELS, 300)):
        machine.taken_next = taken
        with footprint.measuring(stage, pixels):
            pass
    parking: Any = SimpleNamespace(freed=lambda _stage: machine.freed)
    found = Room(footprint, machine, parking, tiles=tiles, blind=blind)
    return found, machine, footprint


@pytest.mark.parametrize(
    ("available", "pictures"), [(10_000, 4), (4 * 220, 4), (4 * 220 - 1, 3), (441, 2), (100, 1)]
)
def test_pictures_of_a_step(monkeypatch: pytest.MonkeyPatch, available: int, pictures: int) -> None:
    """So many share a step as there is memory for, and one is always tried."""
    found, _, _ = built(monkeypatch, available)

    assert found.pictures(PIXELS, 4) == pictures


def test_memory_that_nobody_can_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a figure nothing is limited and nothing is said."""
    found, _, _ = built(monkeypatch, None)

    assert found.pictures(PIXELS, 4) == 4
    assert found.capacity() is None
    assert found.news() is None


def test_sizes_that_were_never_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model without any figures yet is not held back."""
    machine: Any = Machine(10)
    monkeypatch.setattr(room, "time", machine)
    parking: Any = SimpleNamespace(freed=lambda _stage: 0)

    assert (
        Room(Footprint(machine), machine, parking, tiles=False, blind=False).pictures(PIXELS, 4)
        == 4
    )


def test_parts_that_come_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a model that is offloaded anyway no figure means anything: nothing is limited."""
    found, _, _ = built(monkeypatch, 100, blind=True)

    assert found.pictures(PIXELS, 4) == 4
    assert found.capacity() is None


@pytest.mark.parametrize(("tiles", "share"), [(False, 1.0), (True, TILE)])
def test_capacity(monkeypatch: pytest.MonkeyPatch, *, tiles: bool, share: float) -> None:
    """One picture takes its rows in the UNet, and of the decoder what a tile does."""
    found, machine, _ = built(monkeypatch, 5_000, tiles=tiles)
    machine.freed = 70

    capacity = found.capacity()

    assert capacity is not None
    assert capacity.available == 5_000
    assert capacity.need(4 * PIXELS) == {
        "denoise": round(MARGIN * ROWS * 400),
        "vae_decode": round(MARGIN * share * 1200),
    }
    assert capacity.need(PIXELS)["vae_decode"] == round(share * 300)
    assert capacity.need(PIXELS // ROWS)["denoise"] == 100
    assert capacity.relief == {"denoise": 70, "vae_decode": 70}


def test_news(monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of the free memory or of the need is told once; noise and repetition are not."""
    found, machine, footprint = built(monkeypatch, 5_000)

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
    with footprint.measuring("vae_decode", PIXELS):
        pass
    machine.later()
    assert found.news() is not None
    machine.later()
    assert found.news() is None
