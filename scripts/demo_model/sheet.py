"""Contact sheets: many small pictures with their captions on one page."""

from math import ceil
from textwrap import wrap

from PIL import Image, ImageDraw, ImageFont

LINE = 13
LINES = 3


def sheet(pictures: list[Image.Image], texts: list[str], *, columns: int, side: int) -> Image.Image:
    """Lay pictures out in rows, each with its caption below, ``side`` pixels a picture."""
    gap, below = 8, LINES * LINE + 4
    rows = ceil(len(pictures) / columns)
    page = Image.new(
        "RGB", (columns * (side + gap) + gap, rows * (side + below + gap) + gap), "white"
    )
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(11)
    for number, (picture, text) in enumerate(zip(pictures, texts, strict=True)):
        x = gap + number % columns * (side + gap)
        y = gap + number // columns * (side + below + gap)
        small = picture.copy()
        small.thumbnail((side, side), Image.Resampling.LANCZOS)
        page.paste(small, (x + (side - small.width) // 2, y + (side - small.height) // 2))
        for line, words in enumerate(wrap(text, side // 6)[:LINES]):
            pen.text((x, y + side + 2 + line * LINE), words, fill=(60, 60, 70), font=font)
    return page
