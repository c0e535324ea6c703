"""Large JSON objects whose long texts stay where they are."""

import base64
import json
import time
from typing import Any

import pytest

from service.errors import BodyTooLarge, ServiceError, ValidationFailed
from service.http.schema.fields import REPEATED
from service.http.uploads import long_texts
from service.http.uploads.sent import Sent

LONGEST = 1000
DATA = bytes(range(256)) * 40


def read(data: bytes) -> dict[str, Any]:
    """Read an object."""
    return long_texts.read(data, lambda: data, LONGEST)


def image(value: Any) -> bytes:
    """Return the bytes of an image that was left where it is."""
    assert isinstance(value, Sent)
    return b"".join(value.pieces())


def test_long_texts_are_images_and_the_rest_is_read():
    """Wherever they are in the object."""
    text = base64.b64encode(DATA).decode()
    body = {
        "prompt": 'a "boat" \\ \\" \u20ac',
        "image": text,
        "init_images": [text, "short"],
        "more": {"mask": text, "n": [1, 2.5, None, True]},
    }

    for written in (json.dumps(body), json.dumps(body, indent=2, ensure_ascii=False)):
        found = read(written.encode())

        assert image(found["image"]) == DATA
        assert image(found["init_images"][0]) == DATA
        assert image(found["more"]["mask"]) == DATA
        assert found["init_images"][1] == "short"
        assert (found["prompt"], found["more"]["n"]) == (body["prompt"], [1, 2.5, None, True])


def test_a_value_given_twice_is_known():
    """As in a small body."""
    text = base64.b64encode(DATA)

    assert read(b'{"image": "' + text + b'", "image": "' + text + b'"}')["image"] is REPEATED


def test_no_text_can_be_taken_for_another():
    """A client may send anything, but not the name of a long text."""
    text = base64.b64encode(DATA).decode()

    assert read(json.dumps({"a": text, "b": "0" * 64 + "0"}).encode())["b"] == "0" * 65


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"[]", b'"a"', b"{", b'{"a": "' + b"b" * 5000, b"\xff", b'{"a": "\\"}'),
        *(b'{"a": "' + b"b" * 5000 + b'"', b'["' + b"b" * 5000 + b'"]', b"[" * 2000),
    ],
)
def test_what_is_no_object_is_refused(data: bytes):
    """As in a small body."""
    with pytest.raises(ValidationFailed):
        read(data)


@pytest.mark.parametrize(
    "data",
    [
        b'{"a": [' + b"0," * 2000 + b"0]}",
        b'{"a": [' + b'"x",' * 2000 + b'"x"]}',
        b'{"a": "' + b'\\"' * 5000 + b'"}',
        b'{"a": "' + b"\\\\" * 5000 + b'"}',
        b",".join(b'{"a%d": "%s"' % (n, b"a" * 990) for n in range(4)),
    ],
)
def test_a_body_must_be_small_without_its_images(data: bytes):
    """Many values, many names, and texts of nothing but escapes."""
    with pytest.raises(BodyTooLarge):
        read(data)


def test_hostile_bodies_are_refused_soon():
    """Work grows with what is allowed, and not with what is sent."""
    began = time.process_time()
    for data in (
        b'{"a": "' + b'\\"' * 2**22 + b'"}',
        b'{"a": "' + b"\\" * 2**23 + b'"}',
        b'"",' * 2**21,
        b"[" * 2**23,
        b'{"a": "' + b"\\" * 2**23,
    ):
        with pytest.raises(ServiceError):
            read(data)
    assert time.process_time() - began < 5
