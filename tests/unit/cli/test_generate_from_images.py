"""The command ``generate`` with images as input, a second pass or a variation."""

import hashlib
import json

import pytest
from PIL import Image

from service.__main__ import main
from service.core.inputs import Hires, InputImage, Pad
from tests.support.engine_extra import needs_engine

pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture
def pictures(here) -> None:
    """Have an image and a mask in the folder."""
    Image.new("RGB", (640, 400), (10, 20, 30)).save(here / "boat.png")
    mask = Image.new("L", (640, 400))
    mask.paste(255, (200, 100, 400, 300))
    mask.save(here / "mask.png")


@needs_engine
@pytest.mark.usefixtures("pictures")
def test_an_image_is_what_a_request_begins_with(loaded, here, capsys):
    """It is read and prepared here; without a size it keeps its own as far as possible."""
    command = ["generate", "a cat", "--image", "boat.png", "--strength", "0.5", "--json"]
    assert main([*command, "--resize", "fill", "-o", "cat.png"]) == 0
    asked = loaded.request
    digest = hashlib.sha256((here / "boat.png").read_bytes()).hexdigest()
    assert asked.image == InputImage(digest=digest, width=640, height=400)
    assert (asked.width, asked.height, asked.strength, asked.resize) == (640, 384, 0.5, "fill")
    assert len(loaded.inputs.image) == 640 * 384 * 3
    assert loaded.inputs.mask == b""
    metadata = json.loads(capsys.readouterr().out)["metadata"]
    assert metadata["image"] == {"digest": digest, "width": 640, "height": 400}


@needs_engine
@pytest.mark.usefixtures("pictures")
def test_a_repainted_part_is_put_back_into_the_image(loaded, here):
    """The file has the size of the image, and its pixels where nothing was repainted."""
    command = ["generate", "a cat", "--image", "boat.png", "--mask", "mask.png"]
    assert main([*command, "--mask-padding", "16", "--mask-fill", "noise", "-o", "cat.png"]) == 0
    assert (loaded.request.mask_padding, loaded.request.mask_fill) == (16, "noise")
    assert len(loaded.inputs.mask) == loaded.request.width * loaded.request.height
    with Image.open(here / "cat.png") as image:
        assert image.size == (640, 400)
        assert image.getpixel((5, 5)) == (10, 20, 30)
        assert image.getpixel((300, 200)) == (0, 0, 0)


@needs_engine
def test_a_second_pass_and_a_variation_have_options(loaded):
    """A scale or a size, and what else a request may say of them."""
    assert main(["generate", "a cat", "--hires", "1.5", "--hires-strength", "0.4"]) == 0
    assert loaded.request.hires == Hires(scale=1.5, strength=0.4)
    sized = ["--hires", "768x1024", "--hires-steps", "8", "--hires-resize", "lanczos"]
    assert main(["generate", "a cat", *sized]) == 0
    assert loaded.request.hires == Hires(width=768, height=1024, steps=8, resize="lanczos")
    assert main(["generate", "a cat", "--subseed", "7", "--subseed-strength", "0.2"]) == 0
    assert (loaded.request.subseed, loaded.request.subseed_strength) == (7, 0.2)


@needs_engine
@pytest.mark.usefixtures("pictures")
def test_an_image_can_be_made_larger(loaded):
    """Left, top, right and bottom."""
    assert main(["generate", "a cat", "--image", "boat.png", "--pad", "64,0,64,0"]) == 0
    assert loaded.request.pad == Pad(left=64, right=64)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--image", "none.png"], "image: none.png cannot be read (No such file or directory)"),
        (["--image", "text.png"], "image: text.png must be a PNG, JPEG, WebP or AVIF image"),
        (["--mask", "boat.png"], "mask: needs image"),
        (["--image", "boat.png", "--hires", "2"], "hires: cannot go with image"),
        (["--image", "boat.png", "--strength", "0.01"], "strength: must be at least 0.05"),
        (["--hires-steps", "8"], "hires: must have a scale, or width and height"),
    ],
)
@pytest.mark.usefixtures("unloadable", "pictures")
def test_what_cannot_begin_an_image_is_one_line(here, options, words, capsys):
    """Before a model is loaded."""
    (here / "text.png").write_text("no image")
    assert main(["generate", "a cat", *options]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--pad", "64", "must be four numbers, as 64,0,64,0"),
        ("--hires", "large", "must be 2 or 1024x768"),
    ],
)
@pytest.mark.usefixtures("unloadable")
def test_sides_and_sizes_have_a_form(option, value, words, capsys):
    """Anything else ends the command with the form that it must have."""
    with pytest.raises(SystemExit) as caught:
        main(["generate", "a cat", option, value])
    assert caught.value.code == 2
    assert words in capsys.readouterr().err
