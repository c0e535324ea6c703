"""Images in a terminal: kitty's and iTerm2's protocols, sixel, or half blocks in colour."""

import base64
import fcntl
import io
import os
import re
import select
import shutil
import struct
import sys
import termios
import time
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Final

from PIL import Image

MOST_COLUMNS: Final = 64
ANSWER_SECONDS: Final = 0.5
"""Every terminal answers what it is; one at the other end of a slow line takes a while."""

QUESTION: Final = b"\x1b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\\x1b[c"
"""kitty's question whether it shows an image, then what kind of terminal it is (DA1).

All terminals answer the second, so that the first needs no waiting time of its own
(https://sw.kovidgoyal.net/kitty/graphics-protocol, "Querying support").
"""

KITTY_YES: Final = "\x1b_Gi=31;OK"
KIND: Final = re.compile(r"\x1b\[\?([\d;]+)c")
SIXEL_FEATURE: Final = "4"
CHUNK: Final = 4096
CELL: Final = (8, 16)
"""Pixels of a cell where the terminal does not tell: width and height."""

SIXEL_COLOURS: Final = 255
LEVELS: Final = (0, 95, 135, 175, 215, 255)
"""Of red, green and blue in the 256 colours of xterm, from number 16 on."""


class Way(StrEnum):
    """How a terminal shows images."""

    KITTY = "kitty"
    ITERM2 = "iterm2"
    SIXEL = "sixel"
    BLOCKS = "blocks"


def drawn(png: bytes) -> str:
    """Return what shows an image on standard output; empty where that is no terminal."""
    found = way(os.environ, answer) if sys.stdout.isatty() else None
    return "" if found is None else text(png, found, os.environ)


def way(environment: Mapping[str, str], asked: Callable[[], str]) -> Way | None:
    """Return how the terminal shows images; None for one that shows text without colours."""
    if environment.get("TERM", "dumb") == "dumb":
        return None
    inside = "TMUX" in environment or "STY" in environment
    names = {environment.get("TERM_PROGRAM"), environment.get("LC_TERMINAL")}
    if not inside and names & {"iTerm.app", "iTerm2", "WezTerm"}:
        return Way.ITERM2
    said = asked()
    if KITTY_YES in said:
        return Way.KITTY
    kind = KIND.search(said)
    if kind is not None and SIXEL_FEATURE in kind[1].split(";")[1:]:
        return Way.SIXEL
    return Way.BLOCKS


def answer() -> str:
    """Ask the terminal of standard output what it is; empty where it does not say."""
    try:
        place = os.open(os.ttyname(sys.stdout.fileno()), os.O_RDWR | os.O_NOCTTY)
    except OSError:
        return ""
    try:
        # A job in the background would be stopped by a question.
        return _asked(place) if os.tcgetpgrp(place) == os.getpgrp() else ""
    except (OSError, termios.error):
        return ""
    finally:
        os.close(place)


def _asked(place: int) -> str:
    before = termios.tcgetattr(place)
    quiet = termios.tcgetattr(place)
    quiet[3] &= ~(termios.ICANON | termios.ECHO)
    said = b""
    try:
        termios.tcsetattr(place, termios.TCSANOW, quiet)
        os.write(place, QUESTION)
        until = time.monotonic() + ANSWER_SECONDS
        while not KIND.search(said.decode(errors="replace")):
            ready, _, _ = select.select([place], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                break
            said += os.read(place, CHUNK)
    finally:
        # What came late is thrown away: it would stand on the prompt.
        termios.tcsetattr(place, termios.TCSAFLUSH, before)
    return said.decode(errors="replace")


def text(png: bytes, how: Way, environment: Mapping[str, str]) -> str:
    """Return the image as what that kind of terminal draws, about 64 columns wide."""
    with Image.open(io.BytesIO(png), formats=("PNG",)) as file:
        image = file.convert("RGB")
    columns, rows = _cells(image)
    match how:
        case Way.KITTY:
            return _kitty(png, columns)
        case Way.ITERM2:
            content = base64.b64encode(png).decode("ascii")
            return f"\x1b]1337;File=inline=1;size={len(png)};width={columns}:{content}\a"
        case Way.SIXEL:
            width, height = _cell()
            return _sixel(image.resize((columns * width, rows * height)))
        case Way.BLOCKS:
            full = environment.get("COLORTERM") in {"truecolor", "24bit"}
            return _blocks(image.resize((columns, 2 * rows)), _true if full else _one_of_256)


def _cells(image: Image.Image) -> tuple[int, int]:
    """Return how many columns and rows an image gets; a cell is twice as high as wide."""
    terminal = shutil.get_terminal_size()
    share = image.height / image.width / 2
    columns = min(MOST_COLUMNS, terminal.columns, int(max(1, terminal.lines - 2) / share))
    return max(1, columns), max(1, round(columns * share))


def _cell() -> tuple[int, int]:
    try:
        size = fcntl.ioctl(sys.stdout.fileno(), termios.TIOCGWINSZ, bytes(8))
    except (OSError, ValueError):
        return CELL
    rows, columns, width, height = struct.unpack("HHHH", size)
    if not (rows and columns and width and height):
        return CELL
    return max(1, width // columns), max(1, height // rows)


def _kitty(png: bytes, columns: int) -> str:
    content = base64.b64encode(png).decode("ascii")
    parts = [content[place : place + CHUNK] for place in range(0, len(content), CHUNK)]
    first = f"a=T,f=100,q=2,c={columns},"  # q=2: no answer, which would stand on the prompt.
    sent = [
        f"\x1b_G{'' if number else first}m={int(number < len(parts) - 1)};{part}\x1b\\"
        for number, part in enumerate(parts)
    ]
    return "".join(sent)


def _sixel(image: Image.Image) -> str:
    """Return DEC's sixel graphics: bands of six rows, a line of each for each colour."""
    small = image.quantize(SIXEL_COLOURS)
    width, height = small.size
    palette, pixels = small.getpalette() or [], small.tobytes()
    colours = [palette[place : place + 3] for place in range(0, len(palette), 3)]
    named = "".join(
        f"#{number};2;{';'.join(str(round(part / 2.55)) for part in colour)}"
        for number, colour in enumerate(colours)
    )
    bands = []
    for top in range(0, height, 6):
        marks: dict[int, bytearray] = {}
        for row in range(top, min(top + 6, height)):
            for column, colour in enumerate(pixels[row * width : (row + 1) * width]):
                marks.setdefault(colour, bytearray(width))[column] |= 1 << (row - top)
        bands.append("$".join(f"#{colour}{_runs(line)}" for colour, line in marks.items()))
    return f'\x1bPq"1;1;{width};{height}{named}{"-".join(bands)}\x1b\\'


def _runs(line: bytearray) -> str:
    signs = bytes(63 + mark for mark in line).decode("ascii")
    return re.sub(r"(.)\1{3,}", lambda run: f"!{len(run[0])}{run[1]}", signs)


def _blocks(image: Image.Image, colour: Callable[[bytes], str]) -> str:
    """Return the image in half blocks: each cell is two pixels, text and ground."""
    width, pixels = image.width, image.tobytes()
    rows = [pixels[place : place + 3 * width] for place in range(0, len(pixels), 3 * width)]
    lines = []
    for upper, lower in zip(rows[::2], rows[1::2], strict=True):
        cells = range(0, 3 * width, 3)
        lines.append(
            "".join(
                f"\x1b[38;{colour(upper[x : x + 3])};48;{colour(lower[x : x + 3])}m▀" for x in cells
            )
        )
    return "\x1b[0m\n".join(lines) + "\x1b[0m"


def _true(pixel: bytes) -> str:
    return f"2;{pixel[0]};{pixel[1]};{pixel[2]}"


def _one_of_256(pixel: bytes) -> str:
    red, green, blue = (
        min(range(len(LEVELS)), key=lambda level: abs(LEVELS[level] - part)) for part in pixel
    )
    return f"5;{16 + 36 * red + 6 * green + blue}"
