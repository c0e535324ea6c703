"""Drawing and describing scenes."""

import numpy as np
import pytest

from scripts.demo_model.captions import UNSAID, caption
from scripts.demo_model.scene import PLACE_NAMES, TIMES, Scene, all_scenes, draw, training_scene

SIZES = [(128, 128), (256, 256), (512, 320), (768, 256), (256, 768)]


@pytest.mark.parametrize("size", SIZES)
def test_image_fills_every_size(size):
    """An image has the size asked for, and no corner of it stays unpainted."""
    width, height = size
    image = np.array(draw(Scene("day", "desert", "cat", "red"), width, height, 1))
    assert image.shape == (height, width, 3)
    assert image.max(axis=2).min() > 5


def test_same_seed_draws_same_image():
    """The seed decides every detail."""
    scene = Scene("night", "forest", "mushrooms", "purple")
    first, again, other = (np.array(draw(scene, 128, 128, seed)) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_every_time_and_place_can_be_drawn():
    """All times and places come out, and no two look the same."""
    images = [
        draw(Scene(time, place, "none", "none"), 128, 128, 0).tobytes()
        for time in TIMES
        for place in PLACE_NAMES
    ]
    assert len(set(images)) == len(TIMES) * len(PLACE_NAMES)


def test_training_never_sees_held_out_scenes():
    """Scenes for training are none of those the evaluation asks for."""
    rng = np.random.default_rng(0)
    assert not any(training_scene(rng).held_out for _ in range(3000))
    held_out = sum(scene.held_out for scene in all_scenes()) / len(all_scenes())
    assert 0.05 < held_out < 0.12


def test_training_sees_empty_scenes():
    """Scenes without a subject are a good part of the training."""
    rng = np.random.default_rng(0)
    share = np.mean([training_scene(rng).subject == "none" for _ in range(2000)])
    assert 0.1 < share < 0.2


def test_caption_claims_nothing_wrong():
    """What a caption says of a scene is true of it."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        scene = training_scene(rng)
        said = caption(scene, rng).said
        for name in ("time", "place", "subject", "colour"):
            assert getattr(said, name) in {UNSAID, getattr(scene, name)}


def test_caption_names_the_subject():
    """A caption of a scene with a cat has a word for a cat in it."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        text = caption(Scene("day", "city", "cat", "black"), rng).text.lower()
        assert "cat" in text or "kit" in text
