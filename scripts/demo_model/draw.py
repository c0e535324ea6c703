"""Draw training pictures and their captions, to look at them.

Run from the repository's root: python -m scripts.demo_model.draw FOLDER --count 24 --size 512x512.
"""

import argparse
from pathlib import Path

import numpy as np

from .captions import caption
from .scene import draw, training_scene
from .sheet import sheet


def main() -> None:
    """Read the command line, draw, and write the pictures, captions and a contact sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--size", default="256x256", help="WIDTHxHEIGHT in pixels")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    width, height = (int(side) for side in options.size.split("x"))
    rng = np.random.default_rng(options.seed)
    options.folder.mkdir(parents=True, exist_ok=True)
    pictures, texts = [], []
    for number in range(options.count):
        scene = training_scene(rng)
        pictures.append(draw(scene, width, height, int(rng.integers(1 << 31))))
        texts.append(caption(scene, rng).text)
        pictures[-1].save(options.folder / f"{number:05}.png")
        (options.folder / f"{number:05}.txt").write_text(texts[-1] + "\n")
    sheet(pictures, texts, columns=6, side=192).save(options.folder / "sheet.jpg", quality=90)


if __name__ == "__main__":
    main()
