"""Files that commands write: their names, whether they can be written, and writing them."""

import itertools
import re
import stat
import unicodedata
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from service.errors import ConfigError

LONGEST_NAME: Final = 60
"""Bytes of a prompt that a file name takes over; the most for a whole name is 255."""


def paths(output: Path, count: int) -> list[Path]:
    """Return the name of each image, after finding out that all of them can be written.

    Raises:
        ConfigError: one of them cannot, with the cure; found before minutes of work.

    """
    named = [output, *(output.with_stem(f"{output.stem}-{n}") for n in range(2, count + 1))]
    for path in named:
        _demand_replaceable(path)
        _demand_writable(path)
    return named


def demand_folder(folder: Path) -> None:
    """Insist that new files can be written to a folder.

    Raises:
        ConfigError: they cannot, with the cure.

    """
    _demand_writable(folder / "out.png")


def stem(prompt: str, seed: int) -> str:
    """Return a name for an image of this prompt, without the ending: ``a-red-boat-42``.

    Letters and digits of any script stay, tags of adapters go. The words that are too many
    are left out.
    """
    text = unicodedata.normalize("NFC", re.sub(r"<[^<>]*>", " ", prompt)).lower()
    plain = "".join(sign if unicodedata.category(sign)[0] in "LMN" else " " for sign in text)
    words = plain.encode().decode(errors="ignore").split()
    lengths = itertools.accumulate(len(word.encode()) + 1 for word in words)
    fitting = list(itertools.takewhile(lambda length: length <= LONGEST_NAME, lengths))
    first = "".join(words[:1]).encode()[:LONGEST_NAME].decode(errors="ignore")
    name = "-".join(words[: len(fitting)]) or first or "image"
    return f"{name}-{seed}"


def write_new(folder: Path, name: str, content: bytes) -> Path:
    """Write a PNG under a name that no file has; return its path.

    The first free one of ``name.png``, ``name-2.png``, ….

    Raises:
        OSError: it cannot be written; nothing of it is left.

    """
    for number in itertools.count(1):
        path = folder / (f"{name}.png" if number == 1 else f"{name}-{number}.png")
        try:
            file = path.open("xb")  # Takes the name, or fails: nobody can do so in between.
        except FileExistsError:
            continue
        try:
            with file:
                file.write(content)
        except OSError:
            path.unlink()
            raise
        return path
    raise AssertionError("there are names without end")


@contextmanager
def replacing(path: Path, *, keep: bool = True) -> Iterator[BinaryIO]:
    """Open a file that takes the place of ``path`` when it is whole, and leaves nothing else.

    With ``keep=False`` it only tries whether the folder can be written to.
    """
    # Asking for permissions would not do: root has them on a read-only file system too.
    part = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        with part.open("xb") as file:
            yield file
        if keep:
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _demand_writable(path: Path) -> None:
    try:
        with replacing(path, keep=False):
            pass
    except OSError as error:
        raise ConfigError(f"--output {path}: cannot be written ({error.strerror}).") from error


def _demand_replaceable(path: Path) -> None:
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"--output {path}: the folder does not exist; create it.")
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        kind = stat.S_IFREG
    except OSError as error:
        raise ConfigError(f"--output {path}: cannot be written ({error.strerror}).") from error
    if stat.S_ISDIR(kind):
        raise ConfigError(f"--output {path}: is a folder; name a file in it: {path / 'out.png'}.")
    if not stat.S_ISREG(kind):
        # An image takes the place of what had its name: of a device, of a link, not of its target.
        raise ConfigError(
            f"--output {path}: must be a regular file or a new name, not a device or a link."
        )
    if path.suffix.lower() != ".png":
        raise ConfigError(
            f"--output {path}: images are written as PNG; call it {path.stem or 'out'}.png."
        )
