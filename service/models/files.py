"""What a file on disk is, by its first bytes; JSON read safely; the cure for each damage."""

import errno
import json
import os
import re
import stat
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from service.errors import FolderUnusable, ModelError, ModelUnsuitable
from service.models import commands

DEMO_FOLDER: Final = Path(__file__).parent.parent / "demo"
SUFFIX: Final = ".safetensors"
PICKLES: Final = frozenset({".ckpt", ".bin", ".pt", ".pth", ".pkl"})

HEAD: Final = 4096
"""Bytes that a file is judged by."""

LENGTH: Final = 8
"""Bytes of the header's length, in front of it (safetensors format)."""

LONGEST_HEADER: Final = 100_000_000
"""The format's own limit."""

LONGEST_JSON: Final = 64 * 2**20
"""Bytes; the largest tokenizers take about 20 MB."""

SHOWN: Final = 60
"""Characters of a text file that an error quotes."""

PICKLE: Final = (
    f"Only {SUFFIX} files are loaded; most models are published in both formats. Download that one."
)
PAGE: Final = (
    "The link led to a page, probably for a login or a licence. Open it in a browser, and "
    "download the file itself."
)
ANSWER: Final = (
    "The server sent an error instead of the file. Download the file again, with a login if it "
    "needs one."
)
ARCHIVE: Final = f"Unpack it, and give the {SUFFIX} file or the folder that is in it."
FORMAT: Final = f"Download the model as a {SUFFIX} file, or as a folder in diffusers layout."
IMAGE: Final = "Download the model's weights, not its preview."
MAGIC: Final[tuple[tuple[int, bytes, str, str], ...]] = (
    (0, b"\x1f\x8b", "a gzip archive", ARCHIVE),
    (0, b"\xfd7zXZ\0", "an xz archive", ARCHIVE),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", ARCHIVE),
    (0, b"Rar!\x1a\x07", "a RAR archive", ARCHIVE),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard archive", ARCHIVE),
    (0, b"BZh", "a bzip2 archive", ARCHIVE),
    (257, b"ustar", "a tar archive", ARCHIVE),
    (0, b"GGUF", "a GGUF file", FORMAT),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file", FORMAT),
    (4, b"TFL3", "a TensorFlow Lite file", FORMAT),
    (0, b"\x7fELF", "a program for Linux", FORMAT),
    (0, b"MZ", "a program for Windows", FORMAT),
    (0, b"%PDF-", "a PDF document", PAGE),
    (0, b"\x89PNG\r\n\x1a\n", "a PNG image", IMAGE),
    (0, b"\xff\xd8\xff", "a JPEG image", IMAGE),
    (8, b"WEBP", "a WebP image", IMAGE),
    (0, b"GIF8", "a GIF image", IMAGE),
    (4, b"ftyp", "a video", IMAGE),
    (0, b"SQLite format 3\0", "an SQLite database", FORMAT),
)
"""Offset, bytes, what a file with them is, and what to do about it."""

SPECIAL: Final = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


@dataclass(frozen=True, kw_only=True)
class Look:
    """What a file is that is no safetensors file."""

    words: str
    """What follows 'FILE is'."""
    cure: str
    damaged: bool = False
    """Whether it was a model's file, and lost something; else it is another kind of thing."""

    def error(self, path: Path) -> ModelError:
        """Return the error of a file that was to hold a model."""
        kind = ModelError if self.damaged else ModelUnsuitable
        return kind(f"{path} is {self.words}. {self.cure}")


def look(path: Path) -> Look | None:
    """Return what a file is by its first bytes; None for one that begins as safetensors does.

    Raises:
        FolderUnusable: the service's user may not read it.

    """
    if (odd := irregular(path)) is not None:
        return odd
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise unreadable(error) from error
    if path.with_name(f"{path.name}.aria2").exists():
        cure = "Let the program that fetches it finish, or download it again."
        return Look(words="an unfinished download", cure=cure, damaged=True)
    if _begins_a_header(head):
        return None
    return _known(path, head) or _text(path, head) or _unknown(path)


def irregular(path: Path) -> Look | None:
    """Return what stands in place of a file: nothing, a broken link, a folder, a pipe.

    Raises:
        FolderUnusable: the service's user may not look there.

    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
            raise unreadable(error) from error
        words = (
            f"a link to {path.readlink()}, which is not there" if path.is_symlink() else "missing"
        )
        return Look(words=words, cure=fetch_again(path), damaged=True)
    if stat.S_ISREG(mode):
        return None
    if stat.S_ISDIR(mode):
        return Look(words="a folder, not a file", cure=instead(path))
    words = next((text for test, text in SPECIAL if test(mode)), "no file")
    return Look(words=words, cure=f"Give a {SUFFIX} file.")


def read_json(path: Path, *, bom: bool = True, once: bool = False) -> dict[str, Any]:
    """Read a JSON object; with ``bom`` a byte order mark in front of it is no fault.

    Raises:
        ModelError: it is missing, damaged, too large or something else; with ``once`` also where
            it has a key more than once.
        FolderUnusable: the service's user may not read it.

    """
    if (odd := irregular(path)) is not None:
        raise odd.error(path)
    try:
        with path.open("rb") as file:
            data = file.read(LONGEST_JSON + 1)
    except OSError as error:
        raise unreadable(error) from error
    if len(data) > LONGEST_JSON:
        raise damage(path, f"it is larger than {LONGEST_JSON // 2**20} MB")
    if data.startswith(b"\xef\xbb\xbf") and not bom:
        raise damage(path, "it begins with a byte order mark, which the libraries do not read")
    try:
        pairs = partial(_unequal, path) if once else None
        content = json.loads(data.decode("utf-8-sig"), object_pairs_hook=pairs)
    except (ValueError, RecursionError) as error:
        seen = None if data[:1] in {b"{", b"["} else _known(path, data) or _text(path, data)
        raise (seen.error(path) if seen else damage(path, _cause(error))) from error
    if not isinstance(content, dict):
        raise damage(path, f"it holds a {type(content).__name__}, not an object")
    return content


def _unequal(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    if twice:
        raise ModelUnsuitable(f"{path} has {', '.join(sorted(twice))} more than once; keep one.")
    return dict(pairs)


def misnamed(path: Path) -> ModelError:
    """Return the error of safetensors in a file with another ending: the cure renames it."""
    wanted = (f"{path.stem}{SUFFIX}", f"{path.name}{SUFFIX}")
    free = next((name for name in wanted if not os.path.lexists(path.with_name(name))), wanted[-1])
    return ModelUnsuitable(
        f"{path} is a {SUFFIX} file by its content, and has another ending. "
        f"Rename it: {commands.rename(path, free)}"
    )


def damage(path: Path, cause: str) -> ModelError:
    """Return the error of a damaged file, with the cure for the place where it lies."""
    return ModelError(f"{path} is damaged ({cause}). {fetch_again(path)}")


def fetch_again(path: Path) -> str:
    """Return the sentence that says how to replace a missing or damaged file of a model."""
    place = path.absolute()
    if (cached := hub_place(place)) is not None:
        name, cache_dir = cached
        return f"Fetch it again: {commands.models('pull', name, cache_dir=cache_dir)}"
    if place.is_relative_to(DEMO_FOLDER.absolute()):
        root = DEMO_FOLDER.absolute().parents[1]
        if not (root / ".git").exists():
            return "It belongs to the service: install the service again."
        return f"Restore it: {commands.git(root, 'checkout', '--', 'service/demo')}"
    if any((folder / "model_index.json").is_file() for folder in place.parents[:2]):
        return "Copy it again from where the folder came from."
    return "Download it again, or copy it again from where it came from."


def hub_place(path: Path) -> tuple[str, Path] | None:
    """Return the name of the hub's model that a path belongs to, and the cache that it lies in."""
    for inner, folder in zip((path, *path.parents), path.parents, strict=False):
        if folder.name.startswith("models--") and inner.name in {"snapshots", "blobs", "refs"}:
            return hub_name(folder), folder.parent
    return None


def hub_name(folder: Path) -> str:
    """Return the name of the model that a folder of the hub's cache holds."""
    return folder.name.removeprefix("models--").replace("--", "/", 1)


def instead(folder: Path) -> str:
    """Return the sentence that says what to give in place of a folder that is no model."""
    found = []
    with suppress(OSError):
        found = sorted(
            child
            for child in folder.iterdir()
            if child.suffix == SUFFIX or (child / "model_index.json").is_file()
        )
    if not found:
        return f"Give the folder that holds it, or a single {SUFFIX} file."
    return f"Give {' or '.join(str(child) for child in found[:3])}."


def demand_readable(path: Path) -> None:
    """Refuse a file that is there for others; what is not there at all is left to its reader.

    Raises:
        FolderUnusable: the service's user may not read it.

    """
    try:
        if stat.S_ISREG(path.stat().st_mode):
            with path.open("rb"):
                pass
    except PermissionError as error:
        raise unreadable(error) from error
    except OSError:
        return


def unreadable(error: OSError) -> FolderUnusable:
    """Return the error of a model that is there and cannot be read."""
    cure = "Check the disk that it is on."
    if isinstance(error, PermissionError):
        cure = f"Make it, and all folders above it, readable for the service's user{user()}."
    return FolderUnusable(f"{error.filename} cannot be read ({error.strerror}). {cure}")


def user() -> str:
    """Return the user's number, by which a container's user is known outside of it."""
    return f" {os.geteuid()}:{os.getegid()}" if hasattr(os, "geteuid") else ""


def _begins_a_header(head: bytes) -> bool:
    length = int.from_bytes(head[:LENGTH], "little")
    return 0 < length <= LONGEST_HEADER and head[LENGTH : LENGTH + 1] == b"{"


def _known(path: Path, head: bytes) -> Look | None:
    return _nothing(path, head) or _pickle(path, head) or _by_magic(path, head)


def _nothing(path: Path, head: bytes) -> Look | None:
    if head.strip(b"\0"):
        return None
    words = "full of zeros at its beginning: its download was interrupted"
    if not head:
        words = f"empty{_by_name(path)}"
    return Look(words=words, cure=fetch_again(path), damaged=True)


def _pickle(path: Path, head: bytes) -> Look | None:
    if head[:2] in {b"\x80\2", b"\x80\3", b"\x80\4", b"\x80\5"}:
        return Look(words="a pickle file, which can run code when read", cure=PICKLE)
    if not head.startswith(b"PK"):
        return None
    if b"data.pkl" not in head and path.suffix not in PICKLES:
        return Look(words="a ZIP archive", cure=ARCHIVE)
    return Look(words="a pickle file of PyTorch, which can run code when read", cure=PICKLE)


def _by_magic(path: Path, head: bytes) -> Look | None:
    for offset, magic, words, cure in MAGIC:
        if head.startswith(magic, offset):
            return Look(words=words, cure=cure)
    return Look(words="an ONNX file", cure=FORMAT) if path.suffix == ".onnx" else None


def _text(path: Path, head: bytes) -> Look | None:
    if head.startswith(b"version https://git-lfs.github.com/spec/"):
        return Look(words="a pointer of Git LFS, not the file itself", cure=_pulled(path))
    if head.startswith(b"/annex/objects/"):
        cure = f"Fetch the file: {commands.git(path.parent, 'annex', 'get', '--', path.name)}"
        return Look(words="a pointer of git-annex, not the file itself", cure=cure)
    encoding = "utf-16" if head[:2] in {b"\xff\xfe", b"\xfe\xff"} else "utf-8-sig"
    text = head.decode(encoding, errors="replace").strip()
    lowered = text.lower()
    if lowered.startswith(("<!doctype html", "<html", "<head", "<body", "<script", "<!--")):
        return Look(words="an HTML page", cure=PAGE)
    if lowered.startswith("<"):
        return Look(words="an XML document", cure=ANSWER)
    if text.count("\ufffd") > 1 or re.search(r"[\0-\x08\x0e-\x1f]", text):
        return None
    shown = " ".join(text.split())
    quoted = repr(shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}…")
    return Look(words=f"{'JSON' if text[:1] in '{[' else 'plain'} text: {quoted}", cure=ANSWER)


def _pulled(path: Path) -> str:
    if hub_place(path.absolute()) is not None:
        return fetch_again(path)
    if not any((folder / ".git").exists() for folder in path.absolute().parents):
        return "The folder is no working tree of Git any more: download the file itself."
    return f"Fetch the file: {commands.git(path.parent, 'lfs', 'pull')}"


def _unknown(path: Path) -> Look:
    if path.suffix in PICKLES:
        cause = _by_name(path).removeprefix("; ")
        return Look(words=f"no {SUFFIX} file: {cause}", cure=PICKLE)
    words = f"damaged: its first bytes are not those of a {SUFFIX} file"
    return Look(words=words, cure=fetch_again(path), damaged=True)


def _by_name(path: Path) -> str:
    if path.suffix not in PICKLES:
        return ""
    return f"; by its name it is a pickle file, which can run code when read: use a {SUFFIX} file"


def _cause(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    if isinstance(error, UnicodeDecodeError):
        return "it is no UTF-8 text"
    return str(error)
