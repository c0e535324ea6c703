"""``POST /sdapi/v1/extra-single-image`` and ``extra-batch-images``."""

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


async def enlarge_all(client, *files: Any, status: int = 200, **fields: Any) -> Any:
    """Ask for several images in another size."""
    listed = [{"data": file, "name": f"{place}.png"} for place, file in enumerate(files)]
    body = {"imageList": listed, "upscaler_1": "Lanczos"} | fields
    return await ask(client, "POST", "extra-batch-images", status, json=body)


async def test_each_image_of_a_list_gets_another_size(client):
    """In the order of the list, each as if it were alone, and with one account of what was done."""
    tall = base64_of(png((40, 80)))
    alone = [await enlarge(client, image=file) for file in (PNG, tall)]
    answer = await enlarge_all(client, PNG, f"data:image/png;base64,{tall}")
    assert answer == {
        "html_info": alone[0]["html_info"],
        "images": [each["image"] for each in alone],
    }


async def test_an_image_of_a_list_needs_no_name(client):
    """It would change nothing."""
    answer = await enlarge_all(client, imageList=[{"data": PNG}])
    assert [opened(each).size for each in answer["images"]] == [(200, 120)]


@pytest.mark.parametrize(
    "listed", [None, [], PNG, [PNG], [{"name": "a.png"}], [{"data": PNG}] * 33]
)
async def test_a_list_has_at_least_one_image_and_no_more_than_32(client, listed):
    """Each in an object, as AUTOMATIC1111 takes it."""
    answer = await enlarge_all(client, status=400, imageList=listed)
    assert answer["detail"] == (
        'imageList: must be a list of 1 to 32 images, e.g. [{"data": base64}]'
    )


async def test_what_is_no_image_is_named_by_its_place(client):
    """Among the others, which are fine."""
    answer = await enlarge_all(client, PNG, "aGVsbG8=", PNG, status=400)
    assert answer["detail"].startswith("imageList: entry 2: must be a PNG, JPEG, WebP or AVIF")


@pytest.mark.parametrize("upscaler", ["Lanczos", "None"])
async def test_the_images_of_an_answer_have_a_limit_together(serve, upscaler):
    """All of them are in memory at a time."""
    client = await serve(max_image_pixels=30_000)
    fields = {"upscaler_1": upscaler, "upscaling_resize": 1}
    await enlarge_all(client, PNG, PNG, **fields)
    answer = await enlarge_all(client, *[PNG] * 6, status=400, **fields)
    assert answer["detail"].startswith(
        "imageList: must give at most 30000 pixels (MAX_IMAGE_PIXELS) together"
    )


async def test_a_list_needs_the_key(serve):
    """As an image does."""
    client = await serve(api_keys=KEYS)
    await enlarge_all(client, PNG, status=401)
