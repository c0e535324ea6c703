"""``POST /sdapi/v1/img2img`` over the fake engine."""

import asyncio
from typing import Any

import pytest

from tests.support.images.files import base64_of, mask, opened, png
from tests.support.simulation.fake_engine import FakeEngine
from tests.unit.http.sdapi.asking import ask, info

PNG, MASK = base64_of(png()), base64_of(mask())
BODY = {"prompt": "a cat", "steps": 8, "seed": 7, "init_images": [PNG]}


async def redraw(client, status: int = 200, headers: Any = None, **fields: Any) -> Any:
    """Ask for an image of a cat from another image."""
    return await ask(client, "POST", "img2img", status, json=BODY | fields, headers=headers)


async def drawn_as(serve, **fields: Any) -> Any:
    """Return what the engine is asked to draw."""
    engine = FakeEngine(step_seconds=None)
    client = await serve(engine)
    asking = asyncio.create_task(redraw(client, **fields))
    (job_id,) = await engine.jobs(1)
    request = engine.batch[job_id]
    await engine.step(request.total_steps)
    await asking
    return request


@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,"])
async def test_an_image_is_redrawn(client, prefix):
    """In its own size where none is asked for; nothing of it is repeated."""
    answer = await redraw(client, init_images=[prefix + PNG], batch_size=2)
    assert [opened(each).size for each in answer["images"]] == [(256, 192)] * 2 or [
        opened(each).size for each in answer["images"]
    ] == [(320, 256)] * 2
    found = info(answer)
    assert (found["all_seeds"], found["denoising_strength"]) == ([7, 8], 0.75)
    assert found["warnings"] == []
    assert (answer["parameters"]["init_images"], answer["parameters"]["mask"]) == (None, None)
    assert opened(answer["images"][0]).info["parameters"] == found["infotexts"][0]


@pytest.mark.parametrize(
    ("fields", "name", "value"),
    [
        ({}, "strength", 0.75),
        ({"denoising_strength": "0.5"}, "strength", 0.5),
        ({}, "resize", "stretch"),
        ({"resize_mode": 1}, "resize", "crop"),
        ({"resize_mode": "2"}, "resize", "fill"),
        ({"resize_mode": 3}, "resize", "stretch"),
        ({"width": 320, "height": 384}, "width", 320),
        ({"mask": MASK}, "mask_blur", 4),
        ({"mask": MASK, "mask_blur": 9}, "mask_blur", 9),
        ({"mask": MASK, "mask_blur_x": 9, "mask_blur_y": 9}, "mask_blur", 9),
        ({"mask": MASK}, "mask_fill", "blur"),
        ({"mask": MASK, "inpainting_fill": 1}, "mask_fill", "original"),
        ({"mask": MASK, "inpainting_fill": 2}, "mask_fill", "noise"),
        ({"mask": MASK, "inpainting_fill": 3}, "mask_fill", "noise"),
        ({"mask": MASK}, "mask_padding", 0),
        ({"mask": MASK, "inpaint_full_res_padding": 32}, "mask_padding", 32),
        ({"mask": MASK, "inpaint_full_res": 0, "inpaint_full_res_padding": 3}, "mask_padding", -1),
        ({"mask": MASK, "inpainting_mask_invert": 1}, "mask_invert", True),
        ({"mask": MASK}, "mask_invert", False),
        ({"mask": ""}, "mask", None),
        ({"mask": None, "inpainting_mask_invert": 1}, "mask_invert", False),
    ],
)
async def test_its_fields_are_those_of_the_native_api(serve, fields, name, value):
    """What is left out is as in AUTOMATIC1111."""
    assert getattr(await drawn_as(serve, **fields), name) == value


@pytest.mark.parametrize("padding", [-1, 16])
async def test_what_the_mask_leaves_out_stays(client, padding):
    """To the byte, whether the whole image is drawn or what is around the mask."""
    size = (256, 256)
    image = png(size)
    answer = await redraw(
        client,
        init_images=[base64_of(image)],
        mask=base64_of(mask(size)),
        inpaint_full_res=padding >= 0,
        inpaint_full_res_padding=max(padding, 0),
    )
    drawn, given = opened(answer["images"][0]), opened(base64_of(image))
    corner, middle = (0, 0, 32, 32), (96, 96, 160, 160)
    assert drawn.size == size
    assert drawn.crop(corner).tobytes() == given.crop(corner).tobytes()
    assert drawn.crop(middle).tobytes() != given.crop(middle).tobytes()


@pytest.mark.parametrize(
    ("fields", "warning"),
    [
        ({"init_images": [PNG, PNG]}, "init_images: only the first image is used."),
        (
            {"resize_mode": 3},
            "resize_mode: latents are not resized here; the image is stretched.",
        ),
        (
            {"mask": MASK, "inpainting_fill": 3},
            "inpainting_fill: latent nothing is not available; latent noise is used.",
        ),
        ({"initial_noise_multiplier": 1.5}, "initial_noise_multiplier: this service does not do"),
        ({"latent_mask": MASK}, "latent_mask: this service does not do it."),
    ],
)
async def test_what_is_not_done_is_named(client, fields, warning):
    """And the nearest thing is done."""
    (found,) = info(await redraw(client, **fields))["warnings"]
    assert found.startswith(warning)


async def test_a_strength_that_leaves_no_step_leaves_one(client):
    """As AUTOMATIC1111 draws one step at least; the answer says so."""
    found = info(await redraw(client, denoising_strength=0.01, steps=20))
    assert found["denoising_strength"] == 0.05
    assert [each.partition(":")[0] for each in found["warnings"]] == ["denoising_strength"]


@pytest.mark.parametrize(
    ("fields", "detail"),
    [
        ({"init_images": None}, "init_images: is required"),
        ({"init_images": []}, "init_images: must be a list of one image"),
        ({"init_images": [""]}, "init_images: must be a list of one image"),
        ({"init_images": PNG}, "init_images: must be a list of images"),
        ({"init_images": ["aGVsbG8="]}, "init_images: must be a"),
        ({"init_images": ["http://127.0.0.1:9/a.png"]}, "init_images: must be"),
        ({"mask": "aGVsbG8="}, "mask: must be a"),
        ({"resize_mode": 4}, "resize_mode: must be"),
        ({"mask": MASK, "inpainting_fill": -1}, "inpainting_fill: must be"),
        ({"mask": MASK, "mask_blur": 65}, "mask_blur: must be"),
        ({"denoising_strength": 1.1}, "denoising_strength: must be a number"),
    ],
)
async def test_what_cannot_be_is_refused_in_the_words_of_the_client(client, fields, detail):
    """Each by the client's name of the field; no address is fetched."""
    assert (await redraw(client, 400, **fields))["detail"].startswith(detail)


async def test_an_unknown_sampler_is_found_nowhere(client):
    """In the words that clients compare."""
    assert (await redraw(client, 404, sampler_index="DPM fast"))["detail"] == "Sampler not found"


async def test_a_request_that_is_sent_again_is_not_done_twice(tmp_path, serve):
    """With an ``Idempotency-Key``; another image is another request."""
    client = await serve(data_dir=str(tmp_path))
    key = {"Idempotency-Key": "one"}
    first = await redraw(client, headers=key)
    assert (await redraw(client, headers=key))["images"] == first["images"]
    await redraw(client, 409, headers=key, init_images=[base64_of(png((128, 128)))])
