"""Parts of a body in multipart/form-data."""

from typing import Any

import pytest

from service.errors import BodyTooLarge, ServiceError, ValidationFailed
from service.http.uploads import multipart
from service.http.uploads.sent import Sent

BOUNDARY = b"--x1"
PNG = b"\x89PNG\r\n\x1a\n--x\r\n--x0\r\nbytes\r\n"
"""Bytes with line ends and with something like the boundary."""

CODED = b"Content-Transfer-Encoding: base64"


def part(name: str, content: bytes, *more: str, kind: str = "") -> bytes:
    """Return a part with its boundary."""
    head = [f'Content-Disposition: form-data; name="{name}"' + "".join(more)]
    head += [f"Content-Type: {kind}"] if kind else []
    return BOUNDARY + b"\r\n" + "\r\n".join(head).encode() + b"\r\n\r\n" + content + b"\r\n"


def read(*parts: bytes, end: bytes = BOUNDARY + b"--\r\n", most: int = 1000) -> dict[str, Any]:
    """Read a body of these parts."""
    data = b"".join((*parts, end))
    return multipart.read(data, BOUNDARY, lambda: data, most)


def image(value: Any) -> bytes:
    """Return the bytes of a file."""
    assert isinstance(value, Sent)
    return b"".join(value.pieces())


def test_files_and_texts_are_told_apart():
    """By a file name, or by a type that no text has; files may come first."""
    found = read(
        part("image", PNG, '; filename="a.png"', kind="image/png"),
        part("mask", PNG, "; filename*=UTF-8''a%20b.png"),
        part("other", PNG, kind="application/octet-stream"),
        part("prompt", "ein Bär\r\n--x\r\n".encode()),
        part("steps", b"20", kind="text/plain; charset=utf-8"),
        part("empty", b""),
    )

    assert [image(found[name]) for name in ("image", "mask", "other")] == [PNG] * 3
    assert found["prompt"] == "ein Bär\r\n--x\r\n"
    assert (found["steps"], found["empty"]) == ("20", "")


def test_a_name_that_comes_twice_has_a_list():
    """In the order sent."""
    found = read(
        part("image[]", b"one", '; filename="1"'),
        part("image[]", b"two", '; filename="2"'),
        part("n", b"1"),
    )

    assert [image(each) for each in found["image[]"]] == [b"one", b"two"]
    assert found["n"] == "1"


def test_a_file_that_was_not_chosen_is_left_out():
    """Browsers send it empty, and without a name."""
    assert read(part("image", b"", '; filename=""', kind="application/octet-stream")) == {}


def test_an_empty_file_with_a_name_is_a_file():
    """It was chosen; whoever reads it finds that it is no image."""
    assert image(read(part("image", b"", '; filename="a.png"'))["image"]) == b""


def test_what_is_around_the_parts_is_ignored():
    """A preamble, an epilogue, and blanks behind a boundary."""
    data = (
        b"preamble\r\n"
        + part("a", b"1").replace(b"--x1\r\n", b"--x1 \t\r\n", 1)
        + BOUNDARY
        + b"--\r\nepilogue"
    )

    assert multipart.read(data, BOUNDARY, lambda: data, 1000) == {"a": "1"}


def test_a_name_may_have_any_letters():
    """Browsers send names as UTF-8."""
    assert read(part("größe", b"1")) == {"größe": "1"}


def test_a_body_of_no_parts_has_no_fields():
    """Only its end is there."""
    assert read() == {}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"--x1",
        b"--x1\r\n",
        b"--x1junk\r\n\r\n\r\n--x1--",
        part("a", b"1"),
        part("a", b"1") + b"--x",
        b"--x1\r\nContent-Type: text/plain\r\n\r\na\r\n--x1--",
        b"--x1\r\n\r\na\r\n--x1--",
        b"--x1\r\n" + b"a" * 10_000 + b"\r\n\r\n\r\n--x1--",
        part("a", b"YQ==").replace(b"\r\n\r\n", b"\r\n" + CODED + b"\r\n\r\n") + b"--x1--",
        part("a", b"1") * 300 + b"--x1--",
        part("a", b"\xff") + b"--x1--",
    ],
)
def test_a_malformed_body_is_refused(data: bytes):
    """Cut off, without names, encoded once more, or with too many parts."""
    with pytest.raises(ValidationFailed):
        multipart.read(data, BOUNDARY, lambda: data, 1000)


def test_texts_have_a_limit_together():
    """Files have their own."""
    with pytest.raises(BodyTooLarge):
        read(part("a", b"x" * 600), part("b", b"x" * 600))
    assert read(part("a", b"x" * 600), part("b", b"x" * 600, '; filename="b"'))


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/form-data; boundary=x1", b"--x1"),
        ('multipart/form-data; charset=utf-8; boundary="a b"', b"--a b"),
    ],
)
def test_the_boundary_is_read(content_type: str, boundary: bytes):
    """With quotes or without."""
    assert multipart.boundary_of(content_type) == boundary


@pytest.mark.parametrize("content_type", ["multipart/form-data", "multipart/form-data; boundary="])
def test_a_body_without_boundary_is_refused(content_type: str):
    """Nobody could read it."""
    with pytest.raises(ServiceError):
        multipart.boundary_of(content_type)
