"""Images in terminals: what is found out about a terminal, and what is sent to it."""

import base64
import io
import os
import pty
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from PIL import Image

from service.cli import drawing
from service.cli.drawing import Way

ROOT = Path(__file__).parents[3]
XTERM = {"TERM": "xterm-256color"}
KITTY = "\x1b_Gi=31;OK\x1b\\\x1b[?62;c"
SIXEL = "\x1b[?62;4;22c"


def png(width: int = 12, height: int = 12) -> bytes:
    """Return an image whose quarters are red, green, blue and white."""
    image = Image.new("RGB", (2, 2))
    image.putdata([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)])
    file = io.BytesIO()
    image.resize((width, height), Image.Resampling.NEAREST).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("environment", "said", "found"),
    [
        (XTERM, KITTY, Way.KITTY),
        (XTERM, SIXEL, Way.SIXEL),
        (XTERM, "\x1b[?64;1;2;22c", Way.BLOCKS),
        (XTERM, "\x1b[?4c", Way.BLOCKS),  # The first number is the kind of terminal.
        (XTERM, "", Way.BLOCKS),
        ({**XTERM, "TERM_PROGRAM": "iTerm.app"}, "", Way.ITERM2),
        ({**XTERM, "LC_TERMINAL": "iTerm2"}, "", Way.ITERM2),
        ({**XTERM, "TERM_PROGRAM": "WezTerm"}, "", Way.ITERM2),
        ({**XTERM, "LC_TERMINAL": "iTerm2", "TMUX": "x"}, "", Way.BLOCKS),
        ({"TERM": "dumb"}, KITTY, None),
        ({}, KITTY, None),
    ],
)
def test_the_terminal_says_what_it_can_show(environment, said, found):
    """By its answer, where its name does not tell; any other one shows half blocks."""
    assert drawing.way(environment, lambda: said) == found


def test_kitty_gets_the_file_in_pieces():
    """No piece is longer than 4096 bytes, and only the last one says that it is."""
    content = png(512, 512) + os.urandom(20_000)  # What follows the image is sent, too.
    sent = drawing.text(content, Way.KITTY, {})
    pieces = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", sent)
    assert base64.b64decode("".join(piece for _, piece in pieces)) == content
    assert pieces[0][0].startswith("a=T,f=100,q=2,c=")
    assert [keys[-3:] for keys, _ in pieces] == ["m=1"] * (len(pieces) - 1) + ["m=0"]
    assert all(len(piece) <= 4096 for _, piece in pieces)


def test_iterm2_gets_the_file():
    """With its length in bytes."""
    content = png()
    drawn = drawing.text(content, Way.ITERM2, {})
    sent = re.fullmatch(r"\x1b\]1337;File=inline=1;size=(\d+);width=\d+:(.*)\a", drawn)
    assert sent is not None
    assert (int(sent[1]), base64.b64decode(sent[2])) == (len(content), content)


def test_sixel_is_the_image():
    """Read back as a terminal reads it, each pixel has the colour it had."""
    sent = re.fullmatch(
        r'\x1bPq"1;1;(\d+);(\d+)((?:#\d+;2;\d+;\d+;\d+)+)(.*)\x1b\\',
        drawing.text(png(), Way.SIXEL, {}),
    )
    assert sent is not None
    width, height = int(sent[1]), int(sent[2])
    colours = {
        int(number): (int(red), int(green), int(blue))
        for number, red, green, blue in re.findall(r"#(\d+);2;(\d+);(\d+);(\d+)", sent[3])
    }
    seen = {}
    for band, lines in enumerate(sent[4].split("-")):
        for line in lines.split("$"):
            number, marks = re.fullmatch(r"#(\d+)(.*)", line).groups()  # type: ignore[union-attr]
            plain = re.sub(r"!(\d+)(.)", lambda run: run[2] * int(run[1]), marks)
            assert len(plain) == width
            for column, sign in enumerate(plain):
                for bit in range(6):
                    if (ord(sign) - 63) >> bit & 1:
                        seen[column, band * 6 + bit] = colours[int(number)]
    assert seen.keys() == {(x, y) for x in range(width) for y in range(height)}
    corners = [seen[x, y] for y in (0, height - 1) for x in (0, width - 1)]
    assert corners == [(100, 0, 0), (0, 100, 0), (0, 0, 100), (100, 100, 100)]


@pytest.mark.parametrize(
    ("environment", "corners"),
    [
        ({"COLORTERM": "truecolor"}, ["2;255;0;0", "2;0;255;0", "2;0;0;255", "2;255;255;255"]),
        ({}, ["5;196", "5;46", "5;21", "5;231"]),
    ],
)
def test_half_blocks_are_two_pixels_each(environment, corners):
    """In all colours, or in the nearest of 256; each line ends without colour."""
    lines = drawing.text(png(), Way.BLOCKS, environment).split("\n")
    assert all(line.endswith("\x1b[0m") for line in lines)
    cells = [re.findall(r"\x1b\[38;([\d;]+);48;([\d;]+)m▀", line) for line in lines]
    assert len({len(line) for line in cells}) == 1
    found = [cells[0][0][0], cells[0][-1][0], cells[-1][0][1], cells[-1][-1][1]]
    assert found == corners


def test_nothing_is_drawn_into_a_pipe(capsys):
    """A script that reads the names of files gets nothing else."""
    assert drawing.drawn(png()) == ""
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("said", "beginning"), [(KITTY, "\x1b_Ga=T"), (SIXEL, "\x1bPq"), ("", "\x1b[38")]
)
def test_a_real_terminal_is_asked(tmp_path: Path, said, beginning):
    """Its answer is not left on the prompt, and one that says nothing is not waited for long."""
    (tmp_path / "x.png").write_bytes(png())
    ours, theirs = pty.openpty()
    code = (
        "import fcntl, os, sys, termios\n"
        "os.setsid(); fcntl.ioctl(1, termios.TIOCSCTTY, 0)\n"
        "from service.cli.drawing import drawn\n"
        "print(drawn(open(sys.argv[1], 'rb').read()), end='<end>', flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "x.png"],
        stdin=theirs,
        stdout=theirs,
        cwd=ROOT,
        env={**os.environ, **XTERM, "PYTHONPATH": str(ROOT)},
    )
    os.close(theirs)
    seen = b""

    def terminal() -> None:
        nonlocal seen
        asked = False
        while b"<end>" not in seen:
            seen += os.read(ours, 65_536)
            if drawing.QUESTION in seen and not asked:
                asked = True
                os.write(ours, said.encode())

    reader = threading.Thread(target=terminal, daemon=True)
    reader.start()
    assert process.wait(60) == 0
    reader.join(60)
    os.close(ours)
    text = seen.replace(drawing.QUESTION, b"").decode()
    assert text.startswith(beginning)
    assert text.endswith("<end>")
