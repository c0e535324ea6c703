"""The parts of a body in multipart/form-data (RFC 7578)."""

from collections.abc import Callable, Iterator
from email.message import Message
from email.parser import HeaderParser
from typing import Any, Final

from service.errors import BodyTooLarge, ValidationFailed
from service.http.uploads.sent import Sent

MEDIA_TYPE: Final = "multipart/form-data"
LINE, HEAD_END, LAST = b"\r\n", b"\r\n\r\n", b"--"
MOST_PARTS: Final = 256
LONGEST_HEAD: Final = 8192
"""Bytes of the headers of a part."""
DISPOSITION: Final = "content-disposition"
PLAIN: Final = ("", "7bit", "8bit", "binary")


def boundary_of(content_type: str) -> bytes:
    """Return the line that divides the parts of a body.

    Raises:
        ValidationFailed: the header does not name it.

    """
    named = Message()
    named["content-type"] = content_type
    found = named.get_boundary()
    if not found or not found.isascii():
        raise _malformed("its Content-Type must name the boundary")
    return LAST + found.encode()


def read(
    data: bytes, boundary: bytes, again: Callable[[], bytes], most_text: int
) -> dict[str, Any]:
    """Return the fields of a body by their names: texts, and files as ``Sent``.

    A name that is sent more than once has a list. ``again`` reads the same bytes once more.

    Raises:
        ValidationFailed: it is malformed.
        BodyTooLarge: its texts have more than ``most_text`` bytes.

    """
    found: dict[str, list[Any]] = {}
    for head, start, end in _parts(data, boundary):
        name = head.get_param("name", header=DISPOSITION)
        if not isinstance(name, str):
            raise _malformed("a part has no name")
        name = name.encode("latin-1", "replace").decode("utf-8", "replace")
        if _is_file(head):
            if end > start or head.get_param("filename", header=DISPOSITION) != "":
                # Browsers send an empty file without a name where none was chosen.
                sent = Sent(read=again, start=start, end=end, base64=False)
                found.setdefault(name, []).append(sent)
            continue
        most_text -= end - start
        if most_text < 0:
            raise BodyTooLarge("The texts of the body must not be larger than MAX_BODY_BYTES.")
        found.setdefault(name, []).append(_text(data[start:end], name))
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}


def _parts(data: bytes, boundary: bytes) -> Iterator[tuple[Message, int, int]]:
    """Yield the headers of each part, and where its content begins and ends."""
    at = 0 if data.startswith(boundary) else data.find(LINE + boundary) + len(LINE)
    if at < len(LINE) and not data.startswith(boundary):
        raise _malformed("its boundary is not in it")
    for _ in range(MOST_PARTS + 1):
        at += len(boundary)
        if data.startswith(LAST, at):
            return
        line_end = data.find(LINE, at, at + LONGEST_HEAD)
        if line_end < 0 or data[at:line_end].strip(b" \t"):
            raise _malformed("a boundary is cut off")
        head_end = data.find(HEAD_END, line_end, line_end + LONGEST_HEAD)
        if head_end < 0:
            raise _malformed("a part has no headers, or too long ones")
        start = head_end + len(HEAD_END)
        # The content may be empty, and the line before the boundary belongs to it.
        end = data.find(LINE + boundary, start - len(LINE))
        if end < 0:
            raise _malformed("it ends within a part")
        head = data[line_end + len(LINE) : head_end].decode("latin-1")
        yield _head(head), start, max(start, end)
        at = end + len(LINE)
    raise _malformed(f"it has more than {MOST_PARTS} parts")


def _head(text: str) -> Message:
    head = HeaderParser().parsestr(text, headersonly=True)
    coding = str(head.get("content-transfer-encoding", "")).strip().lower()
    if coding not in PLAIN:
        raise _malformed("a part has a Content-Transfer-Encoding; send its bytes as they are")
    return head


def _is_file(head: Message) -> bool:
    """Return whether a part is a file: it has a file name, or a type that no text has."""
    if head.get_param("filename", header=DISPOSITION) is not None:
        return True
    if head.get_param("filename*", header=DISPOSITION) is not None:
        return True
    kind = head.get_content_type()
    return kind.startswith("image/") or kind == "application/octet-stream"


def _text(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise ValidationFailed({name: ["must be text in UTF-8"]}) from None


def _malformed(why: str) -> ValidationFailed:
    return ValidationFailed({"body": [f"must be {MEDIA_TYPE}: {why}"]})
