"""The pipeline of the servers beside the service: what the service obeys binds it, too."""

from typing import Any

import pytest
from PIL import ImageChops

from scripts.benchmark.pipeline import Order, Pipeline
from scripts.cards import plain
from service.models.catalog import DEMO_FOLDER

DEMO = str(DEMO_FOLDER)
ORDER = Order(prompt="a boat", width=192, height=64, steps=1, seed=1, guidance_scale=3.0)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what draws a picture with settings in the environment."""

    def draw(order: Order, **settings: str) -> Any:
        for name in ("VRAM_LIMIT_GB", "VAE_TILING_ABOVE"):
            monkeypatch.setenv(name, settings.get(name, "0"))
        (picture,) = Pipeline(DEMO, 1).draw([order])
        return picture

    return draw


def test_large_pictures_are_decoded_in_tiles(drawn):
    """Where VAE_TILING_ABOVE says so, and no others: tiles differ a little from the whole."""
    whole, tiled = (drawn(ORDER, VAE_TILING_ABOVE=above) for above in ("0", "64"))
    assert ImageChops.difference(whole, tiled).getbbox() is not None
    same = drawn(ORDER, VAE_TILING_ABOVE="192")
    assert ImageChops.difference(whole, same).getbbox() is None


def test_the_cap_is_everybodys(drawn, monkeypatch):
    """VRAM_LIMIT_GB binds the others as it binds the service."""
    limits: list[float] = []
    monkeypatch.setattr(plain, "limit_memory", lambda _, gigabytes: limits.append(gigabytes))
    drawn(ORDER, VRAM_LIMIT_GB="6")
    assert limits == [6.0]
