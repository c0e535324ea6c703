"""Files of images that strangers send."""

import io
import struct
from typing import Any

import pytest
from PIL import Image, ImageOps

from service.images.decode import UNKNOWN, Inspected, colours, inspected, mask
from tests.unit.images.files import SIZE, chunk, exif, gradient, png, saved

MOST = 10_000
FORMATS = ("PNG", "JPEG", "WEBP", "AVIF")
LOSSLESS: dict[str, dict[str, Any]] = {
    "PNG": {},
    "JPEG": {"quality": 100, "subsampling": 0},
    "WEBP": {"lossless": True},
    "AVIF": {"quality": 100, "subsampling": "4:4:4"},
}


def furthest(one: Image.Image, other: Image.Image) -> int:
    """Return the largest difference between two images of one size."""
    assert one.size == other.size
    pairs = zip(one.tobytes(), other.tobytes(), strict=True)
    return max(abs(a - b) for a, b in pairs)


@pytest.mark.parametrize("kind", FORMATS)
def test_each_format_gives_its_pixels(kind: str):
    """PNG and WebP without loss, JPEG and AVIF nearly so."""
    image = gradient()

    data = saved(image, kind, **LOSSLESS[kind])

    assert inspected(data, MOST) == Inspected(width=48, height=32, transparent=False)
    assert furthest(colours(data), image) <= (0 if kind in ("PNG", "WEBP") else 6)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_as_it_says(kind: str, orientation: int):
    """All eight orientations, as Pillow itself turns them."""
    image = gradient()
    data = saved(image, kind, exif=exif(orientation), **LOSSLESS[kind])
    with Image.open(io.BytesIO(data)) as opened:
        expected = ImageOps.exif_transpose(opened).convert("RGB")

    found = inspected(data, MOST)

    assert (found.width, found.height) == expected.size
    assert (found.width, found.height) == (SIZE if orientation < 5 else SIZE[::-1])
    assert furthest(colours(data), expected) == 0


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        *((mode, "PNG") for mode in ("1", "L", "P", "LA", "RGB", "RGBA")),
        *((mode, "JPEG") for mode in ("L", "CMYK")),
        *((mode, kind) for mode in ("RGB", "RGBA") for kind in ("WEBP", "AVIF")),
    ],
)
def test_every_kind_of_pixels_becomes_rgb(mode: str, kind: str):
    """Palettes, grey, CMYK and opacity are what Pillow makes of them."""
    image = gradient().convert(mode)
    data = saved(image, kind, **({} if mode == "CMYK" else LOSSLESS[kind]))
    with Image.open(io.BytesIO(data)) as opened:
        expected = opened.convert("RGBA").convert("RGB")

    assert furthest(colours(data), expected) <= 1


def test_16_bit_keeps_its_upper_half():
    """Pillow alone would cut every value above 255."""
    image = Image.new("I;16", (3, 1))
    for x, value in enumerate((0, 0x8000, 0xFFFF)):
        image.putpixel((x, 0), value)

    found = colours(saved(image))

    assert list(found.tobytes()) == [0, 0, 0, 128, 128, 128, 255, 255, 255]
    assert list(mask(saved(image)).tobytes()) == [0, 128, 255]


def test_transparent_pixels_are_white():
    """Also those of a palette, and of one colour that a PNG names."""
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (10, 20, 30, 0))
    palette = image.convert("RGB").quantize(2)
    named = saved(image.convert("RGB"), transparency=(10, 20, 30))
    other = palette.getpixel((1, 0))

    for data in (saved(image), named, saved(palette, transparency=other)):
        assert list(colours(data).tobytes()) == [255, 0, 0, 255, 255, 255]
        assert inspected(data, MOST).transparent


def test_half_transparent_pixels_are_mixed_with_white():
    """As on a white page."""
    data = saved(Image.new("RGBA", (1, 1), (0, 0, 0, 128)))

    assert colours(data).getpixel((0, 0)) == (127, 127, 127)


def test_a_mask_is_its_opacity_or_its_brightness():
    """Opacity where any of it is transparent; opaque and white are repainted."""
    bright = Image.new("L", (2, 1), 0)
    bright.putpixel((1, 0), 255)
    opaque = Image.new("RGBA", (2, 1), (0, 0, 0, 255))
    opaque.putpixel((0, 0), (255, 255, 255, 0))
    painted = bright.convert("RGBA")

    assert [*mask(saved(bright)).tobytes()] == [0, 255]
    assert [*mask(saved(opaque)).tobytes()] == [0, 255]
    assert [*mask(saved(painted)).tobytes()] == [0, 255]


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "AVIF"])
def test_of_an_animation_the_first_frame_counts(kind: str):
    """Animated PNG, WebP and AVIF."""
    first, second = gradient(), Image.new("RGB", SIZE)
    data = saved(first, kind, save_all=True, append_images=[second], **LOSSLESS[kind])

    assert furthest(colours(data), first) <= 6


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_that_ends_early_is_refused(kind: str):
    """Cut anywhere but within the last bytes, which hold no pixels."""
    data = saved(gradient((200, 100)), kind)

    for share in (0.1, 0.3, 0.6, 0.9):
        with pytest.raises(ValueError, match=r"must|ends"):
            inspected(data[: int(len(data) * share)], MOST * 10)


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"a", b"GIF89a" + bytes(100), b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
        *(saved(gradient(), kind) for kind in ("GIF", "BMP", "TIFF", "ICO", "PPM", "TGA")),
        *(b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"RIFF\0\0\0\0WEBPVP8 "),
        bytes(12) + b"ftypavif",
        png(0, 5),
        png(5, 0),
    ],
)
def test_anything_else_is_refused(data: bytes):
    """Other formats, beginnings of the known ones, and images without a pixel."""
    with pytest.raises(ValueError, match=r"must|ends"):
        inspected(data, MOST)


def test_too_many_pixels_are_refused_before_any_is_decoded():
    """A small file may say anything about its size."""
    with pytest.raises(ValueError, match=r"at most 10000 pixels \(MAX_IMAGE_PIXELS\).*20000x20000"):
        inspected(png(20_000, 20_000), MOST)


def test_a_long_thin_image_is_one():
    """One pixel by 10,000 is no more than other images of as many pixels."""
    data = saved(Image.new("RGB", (1, 10_000), "red"))

    assert inspected(data, MOST) == Inspected(width=1, height=10_000, transparent=False)


def test_exif_data_are_not_unpacked():
    """Each of thousands of entries may name the same megabytes, which Pillow would all copy."""
    entries = b"".join(struct.pack(">HHII", 0x9000 + n, 7, 60_000, 8) for n in range(5000))
    bomb = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 5000) + entries + bytes(4)
    small = saved(gradient())
    end = len(small) - len(chunk(b"IEND"))
    in_png = small[:end] + chunk(b"eXIf", bomb[6:]) + small[end:]

    for data in (
        in_png,
        saved(gradient(), "JPEG", exif=bomb[:65_000]),
        saved(gradient(), "WEBP", exif=bomb),
    ):
        assert inspected(data, MOST).width == SIZE[0]


def test_damaged_exif_data_turn_nothing():
    """Whatever an entry says about where it is."""
    for damaged in (b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0II*\0", exif(9), exif(0)):
        assert inspected(saved(gradient(), "WEBP", exif=damaged), MOST).width == SIZE[0]


def test_thousands_of_scans_are_refused():
    """Each passes over all pixels."""
    data = saved(gradient(), "JPEG", progressive=True)
    start = data.index(b"\xff\xda")

    with pytest.raises(ValueError, match="100 scans"):
        inspected(data[:start] + data[start:-2] * 40 + data[-2:], MOST)


def test_a_million_empty_chunks_are_refused():
    """They would keep Pillow busy for seconds."""
    with pytest.raises(ValueError, match="chunks"):
        inspected(png(8, 8, chunk(b"teSt") * 70_000), MOST)


def test_what_no_image_is_has_one_answer():
    """It names the four formats."""
    with pytest.raises(ValueError, match=UNKNOWN):
        inspected(b"hello", MOST)
