"""Twenty requests of an earlier version, and what it drew for them.

The images are of the commit a935828, with the demo model. To draw them anew, start the service of
that commit with ``MODEL_ID=demo`` and name its address::

    python -m tests.support.kept.images http://127.0.0.1:8000

Of each image a grid of pixels is kept, every eighth of each eighth row.
"""

import base64
import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import requests as http
from PIL import Image

FOLDER: Final = Path(__file__).parent
KEPT: Final = FOLDER / "images.webp"
EACH: Final = 8
"""Pixels from one kept pixel to the next, across and down."""
WIDEST: Final = 40
"""Kept pixels of the widest and of the highest image."""
SECONDS: Final = 120
"""For one answer."""


def bodies() -> list[dict[str, Any]]:
    """Return the bodies of the requests."""
    found: list[dict[str, Any]] = json.loads((FOLDER / "requests.json").read_text("utf-8"))
    return found


def images(answer: Mapping[str, Any]) -> list[np.ndarray]:
    """Return the images in an answer of ``POST /generate``, ``[height, width, 3]``."""
    texts = answer.get("images_base64") or [answer["image_base64"]]
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))) for text in texts]


def grid(image: np.ndarray) -> np.ndarray:
    """Return the pixels of an image that are kept."""
    return image[EACH // 2 :: EACH, EACH // 2 :: EACH]


def keep(found: Sequence[Sequence[np.ndarray]]) -> None:
    """Write the grids of all images of all requests into one image, one below the other."""
    grids = [grid(image) for each in found for image in each]
    sheet = np.zeros((len(grids), WIDEST, WIDEST, 3), np.uint8)
    for place, pixels in zip(sheet, grids, strict=True):
        place[: pixels.shape[0], : pixels.shape[1]] = pixels
    picture = Image.fromarray(sheet.reshape(-1, WIDEST, 3))
    picture.save(KEPT, lossless=True, method=6, quality=100)


def kept() -> list[np.ndarray]:
    """Return the grids of all images, of one request after the other."""
    sheet = np.asarray(Image.open(KEPT).convert("RGB")).reshape(-1, WIDEST, WIDEST, 3)
    sizes = [
        (each["height"] // EACH, each["width"] // EACH)
        for each in bodies()
        for _ in range(each.get("num_images", 1))
    ]
    return [one[:high, :wide] for one, (high, wide) in zip(sheet, sizes, strict=True)]


if __name__ == "__main__":
    address = f"{sys.argv[1]}/generate"
    keep([images(http.post(address, json=each, timeout=SECONDS).json()) for each in bodies()])
