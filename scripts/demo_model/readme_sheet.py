"""Ask a running service for the README's seven images and put them on one sheet.

python -m scripts.demo_model.readme_sheet --url http://127.0.0.1:8000 --output docs/demo-sheet.png
"""

import argparse
import io
import json
import time
import urllib.request
from pathlib import Path

from PIL import Image

from scripts.demo_model.scene import sheet

SEED = 1
IMAGES = (
    ("A beautiful sunset over mountains", 512, 512),
    ("A serene lake with mountains in the background", 512, 512),
    ("A cute robot in a garden", 512, 512),
    ("A magical forest with glowing mushrooms", 512, 512),
    ("A cozy cabin in the woods", 512, 512),
    ("A red boat on the sea at sunset", 768, 512),
    ("A purple rocket over the desert at night", 256, 768),
)


def drawn(url: str, prompt: str, width: int, height: int) -> Image.Image:
    """Ask for one image, and tell how long it took."""
    body = {"prompt": prompt, "width": width, "height": height, "seed": SEED}
    request = urllib.request.Request(  # noqa: S310 - the address is the caller's own service
        f"{url}/generate",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json", "Accept": "image/png"},
    )
    started = time.perf_counter()
    with urllib.request.urlopen(request) as answer:  # noqa: S310
        image = Image.open(io.BytesIO(answer.read()))
    print(f"{time.perf_counter() - started:5.2f} s  {width}x{height}  {prompt}")
    return image


def main() -> None:
    """Read the arguments, ask, and write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--output", type=Path, default=Path("docs/demo-sheet.png"))
    arguments = parser.parse_args()
    images = [drawn(arguments.url, *what) for what in IMAGES]
    texts = [f"{prompt} ({width}x{height})" for prompt, width, height in IMAGES]
    sheet(images, texts, columns=4, side=384).save(arguments.output, optimize=True)


if __name__ == "__main__":
    main()
