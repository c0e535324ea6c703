"""Requests of each mode, and the table of a mixed crowd."""

import pytest

from scripts.modes.crowd import Turns, table
from scripts.modes.requests import MODES, body, image_of
from service.config.limits import limits_of
from service.config.table import Config
from service.core.inputs import InputImage
from service.http.schema.generation import read_request

REFERENCE = InputImage(digest="0" * 64, width=256, height=256)


@pytest.mark.parametrize("mode", MODES)
def test_a_request_of_each_mode_is_one_of_the_service(mode):
    """With whole images where it has some, and another seed for each number."""
    asked = body(mode, 3, 256, 4)
    images = {name: asked[name] for name in ("image", "mask") if name in asked}
    assert all(image_of(text).size == (256, 256) for text in images.values())
    request = read_request({**asked, **dict.fromkeys(images, REFERENCE)}, limits_of(Config()))
    assert (request.seed, request.masked) == (3, mode == "inpaint")
    assert (request.image is not None, request.hires is not None) == (bool(images), mode == "hires")
    assert asked != body(mode, 4, 256, 4)


def test_the_table_compares_images_a_minute():
    """Each mode with its own plain server, and the mean of the ratios."""
    ours = {mode: Turns(seconds=[2.0, 4.0, 3.0], spent=60) for mode in MODES}
    theirs = {mode: Turns(seconds=[5.0, 5.0], spent=60) for mode in MODES}
    lines = table(ours, theirs)
    assert lines[2] == "| text | 3.00 | 2.00 | 1.50 | 3.0 | 5.0 |"
    assert lines[-1] == "| mean | | | 1.50 | | |"


def test_a_mode_without_images_has_no_rate():
    """A server that fails at once must not end the measurement without a table."""
    empty = {mode: Turns() for mode in MODES}
    assert table(empty, empty)[2] == "| text | 0.00 | 0.00 | 0.00 | 0.0 | 0.0 |"
