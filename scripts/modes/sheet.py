"""Make an image of every mode with the demo model, and put them on one sheet.

python -m scripts.modes.sheet --output docs/modes-sheet.jpg
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from PIL import Image, ImageDraw

from scripts.demo_model.scene import sheet
from service.__main__ import main as sd_api

SIDE: Final = 384
SEED: Final = 3
CABIN: Final = "a cozy cabin in the woods"
NIGHT: Final = "a cozy cabin in the woods at night"
ROBOT: Final = "a cute robot in a garden"
BOAT: Final = "a red boat on the sea at sunset"
SIZE: Final = ("--width", str(SIDE), "--height", str(SIDE))


class Modes:
    """Makes images in a folder, and remembers what is below each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.images: list[Image.Image] = []
        self.words: list[str] = []

    def add(self, words: str, prompt: str, *options: str) -> Path:
        """Make an image as ``sd-api generate`` does; return its file."""
        file = self._folder / f"{len(self.images)}.png"
        command = ["generate", prompt, "--seed", str(SEED), *options, "-o", str(file)]
        if sd_api([*command, "--model-id", "demo"]):
            raise SystemExit(f"{command} failed")
        self.show(words, file)
        return file

    def show(self, words: str, file: Path) -> None:
        """Take an image that is there."""
        with Image.open(file) as image:
            self.images.append(image.convert("RGB"))
        self.words.append(words)


def draw(modes: Modes, folder: Path) -> None:
    """Make an image of every mode."""
    text = modes.add(f"text: {CABIN}", CABIN, *SIZE)
    for strength in ("0.4", "0.6", "0.8"):
        begun = ("--image", str(text), "--strength", strength)
        modes.add(f"img2img, strength {strength}: {NIGHT}", NIGHT, *begun)
    mask = folder / "mask.png"
    _oval().save(mask)
    shown = folder / "shown.png"
    Image.composite(Image.new("RGB", (SIDE, SIDE), "white"), modes.images[0], _oval()).save(shown)
    modes.show("mask: white is repainted", shown)
    masked = ("--image", str(text), "--mask", str(mask), "--strength", "1", "--mask-blur", "8")
    modes.add(f"inpainting: {ROBOT}", ROBOT, *masked)
    around = ("--mask-padding", "32", "--mask-fill", "noise")
    modes.add("the same, only the part around the mask, from noise", ROBOT, *masked, *around)
    padded = ("--image", str(text), "--pad", "128,0,128,0", "--strength", "0.9")
    modes.add("outpainting: 128 pixels on the left and on the right", CABIN, *padded)
    for resize in ("latent", "lanczos"):
        second = ("--hires", "2", "--hires-strength", "0.6", "--hires-resize", resize)
        modes.add(f"two passes, 384 and 768 pixels ({resize}): {BOAT}", BOAT, *SIZE, *second)
    for share in ("0.2", "0.4"):
        varied = ("--subseed", "7", "--subseed-strength", share)
        modes.add(f"variation of the first, subseed_strength {share}", CABIN, *SIZE, *varied)


def _oval() -> Image.Image:
    """Return a mask that is white in an oval in the lower half."""
    mask = Image.new("L", (SIDE, SIDE))
    ImageDraw.Draw(mask).ellipse((70, 150, 300, 370), fill=255)
    return mask


def main() -> None:
    """Read the arguments, make the images, and write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("docs/modes-sheet.jpg"))
    output = parser.parse_args().output
    with TemporaryDirectory() as name:
        folder = Path(name)
        modes = Modes(folder)
        draw(modes, folder)
    page = sheet(modes.images, modes.words, columns=4, side=300)
    page.save(output, quality=88, optimize=True)


if __name__ == "__main__":
    main()
