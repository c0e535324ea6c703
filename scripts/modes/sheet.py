"""Ask a running service for an image of every mode, and put them on one sheet.

python -m scripts.modes.sheet --url http://127.0.0.1:8000 --output docs/modes-sheet.jpg
"""

import argparse
import io
import json
import time
import urllib.request
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from scripts.demo_model.scene import sheet
from scripts.modes.requests import base64_of

SIDE = 512
SEED = 3
PROMPT = "a cozy cabin in the woods"
OTHER = "a red boat on the sea at sunset"
NIGHT = "a cozy cabin in the woods at night"


def drawn(url: str, **fields: Any) -> Image.Image:
    """Ask for one image, and tell how long it took."""
    body = {"seed": SEED, **fields}
    request = urllib.request.Request(  # noqa: S310 - the address is the caller's own service
        f"{url}/generate",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json", "Accept": "image/png"},
    )
    began = time.perf_counter()
    with urllib.request.urlopen(request) as answer:  # noqa: S310
        image = Image.open(io.BytesIO(answer.read())).convert("RGB")
    known = {name: value for name, value in body.items() if name not in {"image", "mask"}}
    print(f"{time.perf_counter() - began:5.1f} s  {image.width}x{image.height}  {known}")
    return image


def oval() -> Image.Image:
    """Return a mask that is white in an oval in the upper half."""
    mask = Image.new("L", (SIDE, SIDE))
    ImageDraw.Draw(mask).ellipse((SIDE // 4, SIDE // 16, SIDE * 3 // 4, SIDE // 2), fill=255)
    return mask


def cells(url: str) -> list[tuple[Image.Image, str]]:
    """Return each image and the words below it."""
    text = drawn(url, prompt=PROMPT, width=SIDE, height=SIDE)
    image, mask = base64_of(text), base64_of(oval())
    shown = Image.composite(Image.new("RGB", text.size, "white"), text, oval())
    begun = {"image": image}
    found = [(text, f"text: {PROMPT}")]
    for strength in (0.3, 0.6, 0.9):
        made = drawn(url, prompt=NIGHT, strength=strength, **begun)
        found.append((made, f"img2img, strength {strength}: {NIGHT}"))
    found.append((shown, "mask: white is repainted"))
    masked = {**begun, "mask": mask, "prompt": "a large yellow moon in the sky"}
    found += [
        (drawn(url, strength=1.0, mask_blur=8, **masked), f"inpainting: {masked['prompt']}"),
        (
            drawn(url, strength=1.0, mask_blur=8, mask_padding=32, mask_fill="noise", **masked),
            "inpainting of the part around the mask, at full size, beginning with noise",
        ),
        (
            drawn(url, strength=0.9, prompt=PROMPT, pad={"left": 128, "right": 128}, **begun),
            "outpainting: 128 pixels to the left and to the right",
        ),
    ]
    for resize in ("latent", "lanczos"):
        second = {"scale": 2, "strength": 0.6, "resize": resize}
        made = drawn(url, prompt=OTHER, width=384, height=384, hires=second)
        found.append((made, f"two passes, 384 and 768 pixels ({resize}): {OTHER}"))
    for share in (0.1, 0.3):
        made = drawn(url, prompt=PROMPT, width=SIDE, height=SIDE, subseed=7, subseed_strength=share)
        found.append((made, f"variation of the first image, subseed_strength {share}"))
    return found


def main() -> None:
    """Read the arguments, ask, and write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--output", type=Path, default=Path("docs/modes-sheet.jpg"))
    arguments = parser.parse_args()
    images, texts = zip(*cells(arguments.url), strict=True)
    page = sheet(list(images), list(texts), columns=4, side=300)
    page.save(arguments.output, quality=88, optimize=True)


if __name__ == "__main__":
    main()
