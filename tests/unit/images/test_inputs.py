"""Input images in the size that is drawn, and results put back into them."""

import hashlib
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image, ImageDraw

from service.core.image import RawImage
from service.core.inputs import InputImage, Pad
from service.core.spec import GenerationSpec
from service.images.canvas import crop_region, resized
from service.images.inputs import prepared
from service.images.paste import pasting
from tests.unit.images.files import gradient, saved

SIZE = (64, 128)


def request(image: bytes, size: tuple[int, int], **fields: Any) -> GenerationSpec:
    """Return a request with an image of this size."""
    digest = hashlib.sha256(image).hexdigest()
    return GenerationSpec(
        prompt="a boat",
        image=InputImage(digest=digest, width=size[0], height=size[1]),
        **{"width": SIZE[0], "height": SIZE[1], **fields},
    )


def masked(image: bytes, size: tuple[int, int], **fields: Any) -> GenerationSpec:
    """Return a request with a mask, too."""
    mask = InputImage(digest="0" * 64, width=size[0], height=size[1])
    return request(image, size, **{"mask": mask, **fields})


def painted(size: tuple[int, int], box: tuple[int, int, int, int]) -> Image.Image:
    """Return a mask that is white in a box."""
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).rectangle(box, fill=255)
    return mask


def raw(image: Image.Image, **fields: Any) -> RawImage:
    """Return an image as an engine does."""
    wide, high = image.size
    return RawImage(width=wide, height=high, pixels=image.tobytes(), seed=5, **fields)


def drawn(spec: GenerationSpec, colour: str = "red") -> RawImage:
    """Return an image of one colour as an engine would draw it."""
    return raw(Image.new("RGB", spec.drawn_size, colour))


def opened(image: RawImage) -> Image.Image:
    """Return a result for Pillow."""
    return Image.frombytes("RGB", (image.width, image.height), bytes(image.pixels))


def test_an_image_of_the_size_is_not_changed():
    """Whatever the mode; without a mask there is none."""
    image = gradient(SIZE)
    for mode in ("stretch", "crop", "fill"):
        spec = request(saved(image), SIZE, resize=mode)

        found = prepared(saved(image), b"", spec)

        assert (found.image, found.mask) == (image.tobytes(), b"")


@pytest.mark.parametrize("size", [(31, 200), (200, 31), (64, 64), (1, 3000), (3000, 1), (7, 5)])
@pytest.mark.parametrize("mode", ["stretch", "crop", "fill"])
def test_an_image_of_any_shape_gets_the_size(size: tuple[int, int], mode: str):
    """Three bytes a pixel, also of images that are thousands of times as long as wide."""
    image = saved(gradient(size))

    found = prepared(image, b"", request(image, size, resize=mode))

    assert len(found.image) == SIZE[0] * SIZE[1] * 3


def test_what_is_cut_off_a_long_image_is_never_made():
    """One pixel by 16,000 would become 64 x 1,024,000 first; the middle looks the same."""
    image = Image.new("RGB", (1, 16_000), "blue")

    found = resized(image, SIZE, "crop")

    assert found.tobytes() == Image.new("RGB", SIZE, "blue").tobytes()


def test_a_mask_is_inverted_then_blurred():
    """White where the image is repainted."""
    image, mask = saved(gradient(SIZE)), saved(painted(SIZE, (0, 0, 63, 63)))

    plain = prepared(image, mask, masked(image, SIZE, mask_blur=0)).mask
    inverted = prepared(image, mask, masked(image, SIZE, mask_blur=0, mask_invert=True)).mask
    blurred = prepared(image, mask, masked(image, SIZE, mask_blur=8)).mask

    assert plain == b"\xff" * 64 * 64 + bytes(64 * 64)
    assert inverted == bytes(64 * 64) + b"\xff" * 64 * 64
    assert 0 < blurred[64 * 64] < blurred[64 * 63] < 255


def test_a_mask_of_another_size_covers_the_image():
    """It is stretched over it, without new greys."""
    image, mask = saved(gradient(SIZE)), saved(painted((8, 8), (0, 0, 7, 3)))

    found = prepared(image, mask, masked(image, SIZE, mask_blur=0))

    assert found.mask == b"\xff" * 64 * 64 + bytes(64 * 64)


def test_padding_is_repainted_and_shows_the_edges():
    """The image itself is not, where no mask says so."""
    image = gradient((64, 64))
    data = saved(image)
    spec = request(data, (64, 64), pad=Pad(top=40, bottom=24), mask_blur=0)

    found = prepared(data, b"", spec)

    assert found.mask == b"\xff" * 64 * 40 + bytes(64 * 64) + b"\xff" * 64 * 24
    rows = [found.image[n * 64 * 3 : (n + 1) * 64 * 3] for n in range(128)]
    assert rows[40:104] == [image.tobytes()[n * 192 : (n + 1) * 192] for n in range(64)]
    assert {*rows[:40]} == {rows[40]}
    assert {*rows[104:]} == {rows[103]}


def test_all_four_sides_can_be_padded():
    """Corners have the colour of the corner."""
    image = gradient((32, 64))
    data = saved(image)
    spec = request(data, (32, 64), pad=Pad(left=20, right=12, top=40, bottom=24), mask_blur=0)

    found = Image.frombytes("RGB", SIZE, prepared(data, b"", spec).image)

    assert found.crop((20, 40, 52, 104)).tobytes() == image.tobytes()
    assert found.getpixel((0, 0)) == image.getpixel((0, 0))
    assert found.getpixel((63, 127)) == image.getpixel((31, 63))
    assert found.getpixel((63, 60)) == image.getpixel((31, 20))
    assert found.getpixel((0, 60)) == image.getpixel((0, 20))


def test_a_blurred_filling_takes_the_colours_around():
    """Nothing of what was under the mask is left."""
    image = Image.new("RGB", SIZE, "blue")
    image.paste("red", (16, 16, 48, 48))
    mask = painted(SIZE, (16, 16, 47, 47))
    spec = masked(saved(image), SIZE, mask_blur=0, mask_fill="blur")

    found = Image.frombytes("RGB", SIZE, prepared(saved(image), saved(mask), spec).image)

    assert found.getpixel((32, 32)) == (0, 0, 255)


def test_the_region_has_the_shape_that_is_drawn():
    """Around the mask with its padding, within the image."""
    mask = painted((200, 100), (150, 40, 159, 49))

    assert crop_region(mask, (64, 64), 5) == (145, 35, 165, 55)
    assert crop_region(mask, (64, 128), 5) == (145, 25, 165, 65)
    assert crop_region(painted((200, 100), (0, 0, 9, 9)), (64, 64), 20) == (0, 0, 30, 30)
    assert crop_region(Image.new("L", (200, 100)), (64, 64), 5) is None


def test_where_the_mask_is_black_the_result_is_the_image():
    """Byte for byte, and what was drawn where it is white."""
    image, mask = gradient(SIZE), painted(SIZE, (10, 10, 40, 40))
    spec = masked(saved(image), SIZE)
    blurred = Image.frombytes("L", SIZE, prepared(saved(image), saved(mask), spec).mask)

    found = opened(pasting(saved(image), saved(mask), spec)(drawn(spec)))

    for x in range(SIZE[0]):
        for y in range(SIZE[1]):
            covered = blurred.getpixel((x, y))
            if covered == 0:
                assert found.getpixel((x, y)) == image.getpixel((x, y))
            if covered == 255:
                assert found.getpixel((x, y)) == (255, 0, 0)
    assert {0, 255} < {*blurred.tobytes()}


def test_a_part_is_put_back_into_the_whole():
    """At its place, and all around it is the image, of any size."""
    image, mask = gradient((500, 300)), painted((500, 300), (400, 200, 420, 230))
    spec = masked(saved(image), (500, 300), mask_padding=10, mask_blur=0)

    found = pasting(saved(image), saved(mask), spec)(drawn(spec))

    assert (found.width, found.height) == spec.output_size == (500, 300)
    expected = image.copy()
    expected.paste("red", (400, 200, 421, 231))
    assert opened(found).tobytes() == expected.tobytes()
    assert found.seed == 5


def test_padding_becomes_part_of_the_whole():
    """The image keeps its bytes, the new side is what was drawn."""
    image = gradient((64, 64))
    spec = request(saved(image), (64, 64), pad=Pad(right=64), mask_padding=8, mask_blur=0)

    found = opened(pasting(saved(image), b"", spec)(drawn(spec)))

    assert found.size == spec.output_size == (128, 64)
    assert found.crop((0, 0, 64, 64)).tobytes() == image.tobytes()
    assert found.crop((64, 0, 128, 64)).getcolors() == [(64 * 64, (255, 0, 0))]


def test_an_empty_mask_changes_nothing():
    """Whether the whole is drawn or a part."""
    image, mask = gradient((100, 80)), Image.new("L", (100, 80))
    whole = masked(saved(image), (100, 80), width=128, height=64, resize="stretch")
    part = replace(whole, mask_padding=16)

    assert opened(pasting(saved(image), saved(mask), part)(drawn(part))).tobytes() == (
        image.tobytes()
    )
    assert opened(pasting(saved(image), saved(mask), whole)(drawn(whole))).tobytes() == (
        prepared(saved(image), saved(mask), whole).image
    )


def test_an_image_that_was_blacked_out_stays_black():
    """In the size that its client gets."""
    image, mask = gradient((100, 80)), painted((100, 80), (10, 10, 20, 20))
    spec = masked(saved(image), (100, 80), mask_padding=4)
    unsafe = raw(Image.new("RGB", spec.drawn_size), unsafe=True)

    found = pasting(saved(image), saved(mask), spec)(unsafe)

    assert (found.width, found.height, found.unsafe) == (100, 80, True)
    assert not any(found.pixels)


def test_inputs_that_cannot_be_decoded_are_said_to_be():
    """They may have been damaged on the disk."""
    image = saved(gradient(SIZE))

    with pytest.raises(ValueError, match="must be a PNG"):
        prepared(b"", b"", request(image, SIZE))
    with pytest.raises(ValueError, match="must be a PNG"):
        pasting(image, b"x", masked(image, SIZE))
