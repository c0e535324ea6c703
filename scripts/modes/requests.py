"""One request of each mode, as the service takes it."""

import base64
import io
from collections.abc import Mapping
from typing import Any, Final

from PIL import Image, ImageDraw

GUIDANCE_SCALE: Final = 3.0
"""What the demo model draws best with."""
MODES: Final[Mapping[str, Mapping[str, Any]]] = {
    "text": {},
    "img2img": {"strength": 0.6},
    "inpaint": {"strength": 0.8, "mask_blur": 4},
    "hires": {"hires": {"scale": 1.5, "strength": 0.5, "resize": "latent"}},
}
"""What is asked for in addition to a prompt, by mode."""


def body(mode: str, number: int, side: int, steps: int) -> dict[str, Any]:
    """Return the body of a request; prompt and seed differ from number to number."""
    images: dict[str, str] = {}
    if mode in {"img2img", "inpaint"}:
        images["image"] = base64_of(landscape(side))
    if mode == "inpaint":
        images["mask"] = base64_of(middle(side))
    return {
        "prompt": f"a cabin in the woods, no. {number}",
        "width": side,
        "height": side,
        "steps": steps,
        "seed": number,
        "guidance_scale": GUIDANCE_SCALE,
        "sampler": "dpmpp_2m",
        **MODES[mode],
        **images,
    }


def landscape(side: int) -> Image.Image:
    """Return a square image to begin with: sky, hills, and a sun."""
    image = Image.new("RGB", (side, side), (120, 170, 220))
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, side * 6 // 10, side, side), fill=(70, 120, 60))
    pen.ellipse((side // 2, side // 8, side * 7 // 10, side * 13 // 40), fill=(250, 220, 120))
    return image


def middle(side: int) -> Image.Image:
    """Return a mask that is white in the middle."""
    mask = Image.new("L", (side, side))
    quarter = side // 4
    ImageDraw.Draw(mask).rectangle((quarter, quarter, 3 * quarter, 3 * quarter), fill=255)
    return mask


def base64_of(image: Image.Image) -> str:
    """Return an image as PNG in base64."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def image_of(text: str) -> Image.Image:
    """Return the image that a text in base64 holds."""
    return Image.open(io.BytesIO(base64.b64decode(text)))
