from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest

from service.core.stage import Stage
from service.diffusion.memory.model import FORGETTING, MARGIN, Line, MemoryModel


def footprint(*taken: int | None) -> MemoryModel:
    """Return a footprint whose next measurements are given."""
    figures = iter(taken)
    meter: Any = SimpleNamespace(begin=lambda: None, taken=lambda: next(figures))
    return MemoryModel(meter)


def learn(found: MemoryModel, stage: Stage, *pixels: int) -> None:
    """Do work of these sizes."""
    for count in pixels:
        with found.measuring(stage, count):
            pass


def test_nothing_seen() -> None:
    """Before the first image there is no estimate."""
    assert footprint().bytes(Stage.DENOISE, 100) is None
    assert footprint().fits == {}


def test_what_was_seen_is_known() -> None:
    """A size that was made is foretold as measured, stage by stage."""
    found = footprint(500, 700, 90)

    learn(found, Stage.DENOISE, 100, 200)
    learn(found, Stage.VAE_DECODE, 100)

    assert found.bytes(Stage.DENOISE, 100) == pytest.approx(500, rel=0.01)
    assert found.bytes(Stage.DENOISE, 200) == 700
    assert found.bytes(Stage.VAE_DECODE, 100) == 90


def test_other_sizes_lie_on_a_line() -> None:
    """Two sizes tell what any image takes and what its pixels do; a margin comes on top."""
    found = footprint(500, 700)

    learn(found, Stage.DENOISE, 100, 200)

    assert found.fits[Stage.DENOISE] == pytest.approx((300, 2), rel=0.01)
    assert found.bytes(Stage.DENOISE, 1000) == pytest.approx(MARGIN * 2300, rel=0.01)


@pytest.mark.parametrize("figures", [(500, 400), (0, 300)], ids=["falling", "below nothing"])
def test_figures_that_make_no_line(figures: tuple[int, int]) -> None:
    """Noise foretells neither that images are for nothing nor that they cost the dearest."""
    found = footprint(*figures)

    learn(found, Stage.DENOISE, 100, 200)

    each = [figures[0] / 100, figures[1] / 200]
    told = found.bytes(Stage.DENOISE, 1000)
    assert told is not None
    assert min(each) < told / MARGIN / 1000 < max(each)


def test_an_odd_figure_fades() -> None:
    """One of a size that nobody asks for again does not rule the others for ever."""
    found = footprint(400_000, *[340] * 4000)

    learn(found, Stage.DENOISE, 100, *[1000] * 4000)

    told = found.bytes(Stage.DENOISE, 2000)
    assert told is not None
    assert told < 10_000


def test_corrected_by_what_is_observed() -> None:
    """A higher figure counts at once, a lower one little by little."""
    line = Line()

    line.learn(100, 1000)
    line.learn(100, 2000)
    assert line.bytes(100) == 2000
    line.learn(100, 1000)
    assert line.bytes(100) == 2000 - FORGETTING * 1000


def test_work_that_failed_teaches_nothing() -> None:
    """What ran out of memory half way did not take all it would have."""
    found = footprint(500)

    with suppress(MemoryError), found.measuring(Stage.DENOISE, 100):
        raise MemoryError

    assert found.bytes(Stage.DENOISE, 100) is None


def test_beginning_anew() -> None:
    """What was seen before no longer counts."""
    found = footprint(10**9, 500)

    learn(found, Stage.DENOISE, 100)
    found.forget()
    learn(found, Stage.DENOISE, 100)

    assert found.bytes(Stage.DENOISE, 100) == 500


def test_no_figure() -> None:
    """Where nothing can be measured nothing is learned."""
    found = footprint(None)

    learn(found, Stage.DENOISE, 100)

    assert found.bytes(Stage.DENOISE, 100) is None
