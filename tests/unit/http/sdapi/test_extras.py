"""``POST /sdapi/v1/extra-single-image``."""

from typing import Any

import pytest
from PIL import Image

from tests.support.images.files import base64_of, opened, png
from tests.unit.http.sdapi.asking import KEYS, ask

PNG = base64_of(png((100, 60)))


async def enlarge(client, status: int = 200, **fields: Any) -> Any:
    """Ask for an image in another size."""
    body = {"image": PNG, "upscaler_1": "Lanczos"} | fields
    return await ask(client, "POST", "extra-single-image", status, json=body)


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({}, (200, 120)),
        ({"upscaling_resize": "1.5"}, (144, 88)),
        ({"upscaling_resize": 0.5}, (48, 24)),
        ({"resize_mode": 0, "upscaling_resize_w": 640, "upscaling_resize_h": 640}, (200, 120)),
        ({"resize_mode": 1, "upscaling_resize_w": 150, "upscaling_resize_h": 150}, (150, 150)),
        ({"resize_mode": 1, "upscaling_resize_w": 200, "upscaling_resize_h": 60}, (200, 60)),
        (
            {
                "resize_mode": 1,
                "upscaling_resize_w": 200,
                "upscaling_resize_h": 60,
                "upscaling_crop": False,
            },
            (200, 120),
        ),
        ({"upscaler_1": "None"}, (100, 60)),
        ({"upscaler_1": "None", "resize_mode": 1}, (100, 60)),
    ],
)
async def test_an_image_gets_another_size(client, fields, size):
    """By a factor, in multiples of 8, or to a size in pixels."""
    answer = await enlarge(client, **fields)
    assert answer.keys() == {"html_info", "image"}
    assert opened(answer["image"]).size == size


async def test_it_is_lanczos(client):
    """What Pillow makes, pixel by pixel."""
    found = opened((await enlarge(client))["image"])
    expected = opened(PNG).convert("RGB").resize((200, 120), Image.Resampling.LANCZOS)
    assert found.tobytes() == expected.tobytes()


async def test_what_is_cut_off_is_cut_off_evenly(client):
    """The middle stays."""
    fields = {"resize_mode": 1, "upscaling_resize_w": 60, "upscaling_resize_h": 60}
    found = opened((await enlarge(client, **fields))["image"])
    expected = opened(PNG).convert("RGB").crop((20, 0, 80, 60))
    assert found.tobytes() == expected.tobytes()


async def test_what_is_not_done_is_named(client):
    """Where clients show it."""
    answer = await enlarge(client, gfpgan_visibility=0.5, upscaling_resize=2)
    assert answer["html_info"] == (
        "<p>Postprocess upscale by: 2, Postprocess upscaler: Lanczos, "
        "gfpgan_visibility: this service does not do it</p>"
    )


async def test_the_file_is_of_the_format_of_the_option(client):
    """And of nothing but pixels."""
    await ask(client, "POST", "options", json={"samples_format": "webp"})
    found = opened((await enlarge(client))["image"])
    assert found.format == "WEBP"
    assert "exif" not in found.info


@pytest.mark.parametrize(
    ("fields", "detail"),
    [
        ({"image": None}, "image: is required: an image in base64"),
        ({"image": "aGVsbG8="}, "image: must be a PNG, JPEG, WebP or AVIF"),
        ({"image": "http://127.0.0.1:9/a.png"}, "image: must be an image in base64"),
        ({"upscaler_1": "R-ESRGAN 4x+"}, "upscaler_1: must be one of None, Lanczos"),
        ({"upscaler_2": "LDSR"}, "upscaler_2: must be one of None, Lanczos"),
        ({"upscaling_resize": 9}, "upscaling_resize: must be a number between"),
        (
            {"resize_mode": 1, "upscaling_resize_w": 9000, "upscaling_resize_h": 9000},
            "upscaling_resize_w: must give at most 12582912 pixels (MAX_IMAGE_PIXELS)",
        ),
    ],
)
async def test_what_cannot_be_is_refused(client, fields, detail):
    """In words; no address is fetched."""
    assert (await enlarge(client, 400, **fields))["detail"].startswith(detail)


async def test_a_factor_that_makes_too_many_pixels_is_refused(serve):
    """Before they are made."""
    client = await serve(max_image_pixels=20_000)
    answer = await enlarge(client, 400)
    assert answer["detail"].startswith("upscaling_resize: must give at most 20000 pixels")


async def test_it_needs_the_key(serve):
    """As everything that costs time."""
    client = await serve(api_keys=KEYS)
    await enlarge(client, 401)
