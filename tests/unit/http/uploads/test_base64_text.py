"""Images in base64, piece by piece."""

import base64
import json
import os

import pytest

from service.http.uploads.base64_text import PIECE, decoded

DATA = bytes(range(256)) * 3000
"""More than one piece of base64, with every character of it."""


def joined(text: str | bytes) -> bytes:
    """Return what a text stands for."""
    return b"".join(decoded(text if isinstance(text, bytes) else text.encode()))


def in_json(text: str) -> str:
    """Return a text as it stands between quotes."""
    return json.dumps(text)[1:-1]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 100, PIECE * 3 // 4, PIECE * 3 // 4 + 1, len(DATA)])
def test_bytes_come_back(size: int):
    """Whatever remains at the end of a piece."""
    data = DATA[:size]

    assert joined(base64.b64encode(data)) == data
    assert joined(b"data:image/png;base64," + base64.b64encode(data)) == data


def test_lines_of_mail_are_joined():
    """Wherever they break, also across the end of a piece."""
    assert joined(in_json(base64.encodebytes(DATA).decode())) == DATA
    assert joined(base64.encodebytes(DATA)) == DATA
    assert joined(base64.b64encode(DATA) + b"\r\n") == DATA


def test_escapes_of_json_are_read():
    """PHP escapes the slash, .NET the plus."""
    text = base64.b64encode(DATA).decode()
    escaped = text.replace("/", "\\/").replace("+", "\\u002B").replace("A", "\\u0041")

    assert joined(escaped) == DATA


@pytest.mark.parametrize("shift", range(8))
def test_an_escape_may_stand_across_the_end_of_a_piece(shift: int):
    """Its halves belong together."""
    blanks = "\\n" * (PIECE // 2 - 4) + "\\u000a"
    text = " " * shift + blanks + base64.b64encode(DATA).decode()

    assert joined(text) == DATA


@pytest.mark.parametrize(
    "text",
    [
        *("a", "abc", "abcde", "ab=c", "====", "YQ==YQ==", "YQ==\\n\\nYQ==", "Y!==", "YWJj="),
        *("data:image/png;base64", "https://example.org/a.png", "\\ud800aaa", "äöü", "\\", "\\x"),
        *("aaaa\\", "/etc/passwd", "file:///etc/passwd"),
    ],
)
def test_anything_else_is_refused(text: str):
    """Addresses and paths are named as what they are not."""
    with pytest.raises(ValueError, match="base64; addresses are not fetched"):
        joined(text)


def test_what_follows_the_end_is_refused():
    """Also in another piece."""
    text = base64.b64encode(os.urandom(PIECE * 3 // 4 - 2)).decode() + "YWJj"

    with pytest.raises(ValueError, match="base64"):
        joined(text)
