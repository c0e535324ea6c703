"""Requests and answers of ``txt2img`` and ``img2img``, and what of a request is not done."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from marshmallow import fields

from service.http.compat.reading import LooseSchema
from service.http.schema.answers import described
from service.http.sdapi.generation.fields import (
    COMMON,
    LONGEST_NAME,
    NOT_HERE,
    Images,
    flag,
    name,
    number,
)

SHOWN: Final = 16
"""Unknown names that an answer lists."""

TextToImage: Final = LooseSchema.from_dict(
    {
        **COMMON,
        "denoising_strength": number(
            "How much of the first image the second pass redraws, from 0 to 1.", 0.75
        ),
        "enable_hr": flag("Draw a second pass in a larger size."),
        "hr_scale": number("Width and height of the second pass, in those of the first.", 2),
        "hr_resize_x": number(
            "Width of the second pass in pixels, instead of `hr_scale`; 0 for one that suits "
            "`hr_resize_y`.",
            0,
        ),
        "hr_resize_y": number("Height of the second pass, in the same way.", 0),
        "hr_second_pass_steps": number(
            "Steps that the second pass does; 0 for as many as the first.", 0
        ),
        "hr_upscaler": name(
            "What enlarges the first image: `Latent` or `Lanczos`. Others give the one of these "
            "that is nearest, and a warning.",
            "Latent",
        ),
        "hr_checkpoint_name": name("Model of the second pass. " + NOT_HERE, ""),
        "hr_sampler_name": name("Sampler of the second pass. " + NOT_HERE, ""),
        "hr_scheduler": name("Noise schedule of the second pass. " + NOT_HERE, ""),
        "hr_prompt": fields.Raw(
            load_default="",
            metadata={"type": "string", "description": "Its prompt. " + NOT_HERE},
        ),
        "hr_negative_prompt": fields.Raw(
            load_default="",
            metadata={"type": "string", "description": "Its negative prompt. " + NOT_HERE},
        ),
    },
    name="TextToImageRequest",
)
TEXT_TO_IMAGE: Final = TextToImage()

ImageToImage: Final = LooseSchema.from_dict(
    {
        **COMMON,
        "init_images": Images(
            "The image to redraw: a list of one PNG, JPEG, WebP or AVIF in base64, with or "
            "without the beginning of a data URL. Others of the list are ignored, with a warning."
        ),
        "mask": Images(
            "Mask in base64: white (where it has transparency, what is opaque) is redrawn.",
            one=True,
        ),
        "denoising_strength": number("How much of the image is redrawn, from 0 to 1.", 0.75),
        "resize_mode": number(
            "How the image gets the size: 0 stretches it, 1 crops it, 2 fills the rest; 3 is not "
            "available here and stretches it, too.",
            0,
        ),
        "mask_blur": number("Blur of the mask's edge in pixels, from 0 to 64.", 4),
        "mask_blur_x": number("The same, for `mask_blur` where that is left out.", 4),
        "inpainting_fill": number(
            "What the redrawn part begins with: 0 blurred surroundings, 1 the image, 2 noise; 3 "
            "is not available here and begins with noise, too.",
            0,
        ),
        "inpaint_full_res": flag(
            "Draw what is around the mask at the full size, and paste it into the image.",
            default=True,
        ),
        "inpaint_full_res_padding": number("Pixels around the mask, with `inpaint_full_res`.", 0),
        "inpainting_mask_invert": number("1 redraws what the mask leaves out.", 0),
        "initial_noise_multiplier": number("Strength of the noise. " + NOT_HERE, 1),
        "latent_mask": Images("Second mask. " + NOT_HERE, one=True),
        "include_init_images": flag("Images of a request are never repeated; it changes nothing."),
    },
    name="ImageToImageRequest",
)
IMAGE_TO_IMAGE: Final = ImageToImage()

Answer: Final = LooseSchema.from_dict(
    {
        "images": described(
            partial(fields.List, fields.String()),
            "The images as base64, without a prefix; empty with `send_images: false` and for a "
            "job that was interrupted while it waited.",
            ["iVBORw0KGgo…"],
        ),
        "parameters": described(
            fields.Dict, "Known fields of the request, without its images.", {"steps": 20}
        ),
        "info": described(
            fields.String,
            "A JSON object: `all_seeds`, `infotexts`, `sampler_name` and so on, and `warnings`: "
            "what was not done as asked.",
            '{"seed": 42, "all_seeds": [42]}',
        ),
    },
    name="TextToImageAnswer",
)

QUIET: Final[Mapping[str, tuple[Any, ...]]] = {
    "seed_resize_from_h": (-1, 0),
    "seed_resize_from_w": (-1, 0),
    "s_churn": (0,),
    "s_noise": (1,),
    "restore_faces": (False,),
    "tiling": (False,),
    "refiner_checkpoint": ("", "None"),
    "script_name": ("", "None"),
    "initial_noise_multiplier": (1,),
    "latent_mask": ((),),
}
"""Fields whose other values ask for what this service does not do."""

QUIET_HIRES: Final[Mapping[str, tuple[Any, ...]]] = {
    "hr_checkpoint_name": ("", "Use same checkpoint"),
    "hr_sampler_name": ("", "Use same sampler"),
    "hr_scheduler": ("", "Use same scheduler"),
    "hr_prompt": ("",),
    "hr_negative_prompt": ("",),
}
"""The same of a second pass."""

TEXTS: Final = {"hr_prompt": "prompt", "hr_negative_prompt": "negative_prompt"}
"""Texts of a second pass, and those of the first that they may repeat."""


def not_done(sent: Mapping[str, Any]) -> list[str]:
    """Return a line for everything that a request asks for and that is not done."""
    quiet = {**QUIET, **(QUIET_HIRES if sent.get("enable_hr") else {})}
    found = [
        f"{each}: this service does not do it."
        for each, silent in quiet.items()
        if (value := sent.get(each)) is not None
        and value not in silent
        and not (each in TEXTS and value == sent[TEXTS[each]])
    ]
    found += [f"alwayson_scripts: there is no {each}." for each in _shown(sent["alwayson_scripts"])]
    found += [f"styles: there is no {each}." for each in _shown(sent["styles"]) if each != "None"]
    return found


def _shown(names: Any) -> list[str]:
    shown = [repr(each[:64]) if not each.isprintable() else each[:64] for each in names]
    if len(shown) > SHOWN:
        return [*shown[:SHOWN], f"other ({len(shown) - SHOWN} more names)"]
    return shown


def echoed(sent: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a request as its answer repeats them: those that are known.

    Clients send passwords and images in others. ``overrides`` are the known options of the
    request.
    """
    kept = {each: value for each, value in sent.items() if _plain(value)}
    images = dict.fromkeys(each for each in ("init_images", "mask") if each in sent)
    return {
        **kept,
        **images,
        "styles": [each[:LONGEST_NAME] for each in sent["styles"]],
        "alwayson_scripts": {each: {"args": []} for each in _shown(sent["alwayson_scripts"])},
        "override_settings": dict(overrides),
    }


def _plain(value: Any) -> bool:
    finite = not isinstance(value, float) or math.isfinite(value)
    return finite and (value is None or isinstance(value, str | int | float))
