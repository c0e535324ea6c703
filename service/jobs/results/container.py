"""The file of a job's images: a ZIP without compression, held against what is written there."""

import errno
import json
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

from service.jobs.results.base import Sizes

ABOUT: Final = "about.json"
LARGEST_ABOUT: Final = 4 * 2**20
LARGEST_IMAGE: Final = 256 * 2**20
"""More than noise of the largest size that the settings allow."""

MOST_MEMBERS: Final = 1024
LARGEST_DIRECTORY: Final = 256 * 2**10
END: Final = struct.Struct("<4s4H2LH")
"""The end of the directory: signature, disks, entries, size and place of the directory."""

END_SIGNATURE: Final = b"PK\x05\x06"

PNG: Final = "image/png"
PNG_BEGIN: Final = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
PNG_END: Final = b"\x00\x00\x00\x00IEND\xaeB`\x82"

DAMAGE: Final = (
    *(zipfile.BadZipFile, EOFError, LookupError, TypeError, ValueError),
    # A bit that turned over may ask for a password, for another compression or a longer field.
    *(RuntimeError, struct.error, zlib.error, OverflowError),
)
"""What is raised over a file that is not as it was written."""


@contextmanager
def opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open the file of a job; neither a link nor a pipe is one, and nothing in it inflates.

    Raises:
        OSError: the disk cannot read it.
        one of DAMAGE: it is not what was written.

    """
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ValueError("it is a link") from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError("it is no regular file")
    with open(descriptor, "rb") as file:  # noqa: PTH123 - opened by its flags
        _demand_directory(file)
        try:
            with zipfile.ZipFile(file) as packed:
                for member in packed.infolist():
                    _demand_stored(member)
                yield packed
        except OSError as error:
            if error.errno == errno.EINVAL:  # A place that no file has.
                raise ValueError("its directory leads nowhere") from error
            raise


def about(file: zipfile.ZipFile) -> dict[str, Any]:
    """Return what is written next to the images.

    Raises:
        one of DAMAGE: it is not what was written.

    """
    found = json.loads(file.read(ABOUT))
    if not isinstance(found, dict) or not isinstance(found["media_types"], list):
        raise TypeError(f"{ABOUT} is none")
    return found


def demand_image(data: bytes, media_type: object, sizes: Sizes) -> None:
    """Raise ValueError unless ``data`` is the whole of a PNG, which is what is kept."""
    if media_type != PNG:
        raise ValueError(f"{media_type!r} is not kept")
    if not data.startswith(PNG_BEGIN) or not data.endswith(PNG_END):
        raise ValueError("it is no whole PNG")
    width, height = struct.unpack_from(">2L", data, len(PNG_BEGIN))
    if sizes and (width, height) not in sizes:
        raise ValueError(f"it has {width}x{height} pixels")


def _demand_directory(file: IO[bytes]) -> None:
    """Look at the size of the directory before it is read: ``zipfile`` holds all of it."""
    length = file.seek(0, os.SEEK_END)
    if length < END.size:
        raise ValueError("it is cut short")
    file.seek(length - END.size)
    signature, *_, entries, size, place, comment = END.unpack(file.read(END.size))
    if signature != END_SIGNATURE or comment or size > LARGEST_DIRECTORY:
        raise ValueError("it has no directory at its end")
    if entries > MOST_MEMBERS or place + size + END.size != length:
        raise ValueError("its directory does not fit")


def _demand_stored(member: zipfile.ZipInfo) -> None:
    largest = LARGEST_ABOUT if member.filename == ABOUT else LARGEST_IMAGE
    if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
        raise ValueError(f"{member.filename} is compressed")
    if member.file_size > largest:
        raise ValueError(f"{member.filename} has {member.file_size} bytes")
