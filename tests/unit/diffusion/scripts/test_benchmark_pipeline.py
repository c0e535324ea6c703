"""The pipeline of the servers beside the service: what the service obeys binds it, too."""

from typing import Any

import pytest
from PIL import ImageChops

from scripts.benchmark.pipeline import Body, Pipeline
from scripts.benchmark.rows import Row
from scripts.cards import plain
from service.models.catalog import DEMO_FOLDER

DEMO = str(DEMO_FOLDER)
BODY = Row(width=192, height=64, steps=1).body(1)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what draws an image with settings in the environment."""

    def draw(body: Body, **settings: str) -> Any:
        known = {"MODEL_ID": DEMO, "TORCH_THREADS": "1", "VRAM_LIMIT_GB": "0"}
        for name, value in {**known, "VAE_TILING_ABOVE": "0", **settings}.items():
            monkeypatch.setenv(name, value)
        (image,) = Pipeline().draw([body])
        return image

    return draw


def test_large_images_are_decoded_in_tiles(drawn):
    """Where VAE_TILING_ABOVE says so, and no others: tiles differ a little from the whole."""
    whole, tiled = (drawn(BODY, VAE_TILING_ABOVE=above) for above in ("0", "64"))
    assert ImageChops.difference(whole, tiled).getbbox() is not None
    same = drawn(BODY, VAE_TILING_ABOVE="192")
    assert ImageChops.difference(whole, same).getbbox() is None


def test_the_cap_is_everybodys(drawn, monkeypatch):
    """VRAM_LIMIT_GB binds the others as it binds the service."""
    limits: list[float] = []
    monkeypatch.setattr(plain, "limit_memory", lambda _, gigabytes: limits.append(gigabytes))
    drawn(BODY, VRAM_LIMIT_GB="6")
    assert limits == [6.0]
