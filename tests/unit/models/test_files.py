"""A file that is no model says what it is, and the cure fits; JSON is read safely."""

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import shlex
import socket
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save

from service.errors import ModelError, ModelUnsuitable
from service.models import catalog, files, weights

TENSORS = save({"w": np.zeros((2, 3), np.float16)})
HASH = "0123456789abcdef0123456789abcdef01234567"


def zipped(name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, pickle.dumps({}))
    return buffer.getvalue()


def tarred() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.safetensors"), io.BytesIO())
    return buffer.getvalue()


def drawn(form: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, form)
    return buffer.getvalue()


OTHER_THINGS = {
    "html": (b"\n<!DOCTYPE html><html><body>Log in</body></html>", "an HTML page", "licence"),
    "html in capitals": (b"\xef\xbb\xbf<HTML>", "an HTML page", "download the file itself"),
    "xml": (b'<?xml version="1.0"?><Error>AccessDenied</Error>', "an XML document", "an error"),
    "json": (b'{"error":"Invalid credentials"}', 'JSON text: \'{"error"', "with a login"),
    "text": (b"Entry not found", "plain text: 'Entry not found'", "Download the file again"),
    "utf-16": ("Zugriff verweigert".encode("utf-16"), "plain text: 'Zugriff", "Download"),
    "annex": (b"/annex/objects/SHA256E-s4--0.safetensors\n", "git-annex", "annex get -- "),
    "lfs": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n",
        "a pointer of Git LFS",
        "download the file itself",
    ),
    "pickle": (pickle.dumps({"w": [1.0]}), "a pickle file, which can run code", "both formats"),
    "old pickle": (pickle.dumps({}, protocol=2), "a pickle file", "both formats"),
    "torch": (zipped("archive/data.pkl"), "a pickle file of PyTorch", "both formats"),
    "zip": (zipped("notes.txt"), "a ZIP archive", "Unpack it"),
    "tar": (tarred(), "a tar archive", "Unpack it"),
    "gzip": (gzip.compress(TENSORS), "a gzip archive", "Unpack it"),
    "xz": (lzma.compress(TENSORS), "an xz archive", "Unpack it"),
    "bzip2": (bz2.compress(TENSORS), "a bzip2 archive", "Unpack it"),
    "7z": (b"7z\xbc\xaf\x27\x1c\0\4", "a 7z archive", "Unpack it"),
    "rar": (b"Rar!\x1a\x07\1\0", "a RAR archive", "Unpack it"),
    "zstd": (b"\x28\xb5\x2f\xfd\4\0", "a Zstandard archive", "Unpack it"),
    "gguf": (b"GGUF\3\0\0\0", "a GGUF file", "as a .safetensors file"),
    "hdf5": (b"\x89HDF\r\n\x1a\n", "an HDF5 file", "as a .safetensors file"),
    "elf": (b"\x7fELF\2\1\1\0", "a program for Linux", "as a .safetensors file"),
    "exe": (b"MZ\x90\0\3\0\0\0", "a program for Windows", "as a .safetensors file"),
    "pdf": (b"%PDF-1.7\n", "a PDF document", "download the file itself"),
    "png": (drawn("PNG"), "a PNG image", "not its preview"),
    "jpeg": (drawn("JPEG"), "a JPEG image", "not its preview"),
    "webp": (drawn("WEBP"), "a WebP image", "not its preview"),
}
DAMAGED = {
    "empty": (b"", "is empty", "Download it again"),
    "zeros": (bytes(10_000), "full of zeros", "Download it again"),
    "noise": (b"\xf0" * 300, "its first bytes are not those", "Download it again"),
    "a cut header": (TENSORS[:20], "bytes of its header are missing", "Download it again"),
    "a cut": (TENSORS[:-5], f"5 of {len(TENSORS)} bytes are missing", "Download it again"),
    "more": (TENSORS + b"12", "has 2 bytes more than its header says", "Download it again"),
}


@pytest.mark.parametrize("kind", OTHER_THINGS)
def test_what_is_something_else_says_what_and_what_to_do(tmp_path, kind):
    """It never was a model, so nothing that starts waits for it to be repaired."""
    content, words, cure = OTHER_THINGS[kind]
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    for read in (weights.header, lambda path: catalog.resolve(str(path), tmp_path)):
        with pytest.raises(ModelUnsuitable) as caught:
            read(path)
        assert f"{path} is {words.removeprefix('is ')}" in caught.value.detail or (
            words in caught.value.detail
        )
        assert cure in caught.value.detail
        assert "\n" not in caught.value.detail


@pytest.mark.parametrize("kind", DAMAGED)
def test_what_is_damaged_says_how_and_what_to_do(tmp_path, kind):
    """Of a part that is missing with its size."""
    content, words, cure = DAMAGED[kind]
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        weights.header(path)
    assert not isinstance(caught.value, ModelUnsuitable)
    assert words in caught.value.detail
    assert cure in caught.value.detail


def test_a_download_that_aria2_has_not_finished(tmp_path):
    """It has its whole length from the beginning, and a file next to it."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(bytes(100))
    (tmp_path / "model.safetensors.aria2").touch()
    with pytest.raises(ModelError, match="is an unfinished download"):
        weights.header(path)


@pytest.mark.parametrize("name", ["model.ckpt", "model.pt", "model.bin", "my model", "m.sft.txt"])
def test_safetensors_under_another_name_are_renamed_by_the_command(tmp_path, name):
    """It is what the file holds that counts; afterwards it is found."""
    path = tmp_path / "it's here" / name
    path.parent.mkdir()
    path.write_bytes(TENSORS)
    with pytest.raises(ModelUnsuitable, match=r"is a \.safetensors file by its content") as caught:
        catalog.resolve(str(path), tmp_path)
    command = caught.value.detail.partition("Rename it: ")[2]
    subprocess.run(["/bin/sh", "-c", command], check=True, cwd="/")
    (renamed,) = path.parent.iterdir()
    assert renamed.suffix == ".safetensors"
    assert catalog.resolve(str(renamed), tmp_path).single_file


def test_a_file_that_is_in_the_way_is_not_replaced(tmp_path):
    """The name is another then."""
    (tmp_path / "model.safetensors").write_text("mine")
    (tmp_path / "model.ckpt").write_bytes(TENSORS)
    with pytest.raises(ModelUnsuitable, match=r"model\.ckpt\.safetensors$"):
        catalog.resolve(str(tmp_path / "model.ckpt"), tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty; by its name it is a pickle file"),
        (b"\xf0" * 99, "no .safetensors file: by its name it is a pickle file"),
        (OTHER_THINGS["html"][0], "is an HTML page"),
        (OTHER_THINGS["lfs"][0], "is a pointer of Git LFS"),
        (OTHER_THINGS["torch"][0], "is a pickle file of PyTorch"),
    ],
)
def test_a_name_of_a_pickle_is_looked_into(tmp_path, content, words):
    """What it holds is said, not what its name promises."""
    path = tmp_path / "model.ckpt"
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        catalog.resolve(str(path), tmp_path)
    assert words in caught.value.detail


def pipe(path: Path) -> None:
    os.mkfifo(path)


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


STRANGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "pipe": (pipe, "is a named pipe"),
    "socket": (listening, "is a socket"),
    "device": (lambda path: path.symlink_to("/dev/null"), "is a device"),
    "broken": (lambda path: path.symlink_to("gone"), "is a link to gone, which is not there"),
    "loop": (lambda path: path.symlink_to(path.name), "which is not there"),
    "folder": (Path.mkdir, "is a folder, not a file"),
    "nothing": (lambda _path: None, "is missing"),
}


@pytest.mark.parametrize("kind", STRANGE)
def test_what_stands_in_place_of_a_file_is_named_and_not_opened(tmp_path, kind, monkeypatch):
    """A pipe would keep its reader waiting for ever."""
    make, words = STRANGE[kind]
    monkeypatch.chdir(tmp_path)  # A socket's path must be short.
    path = Path("m.safetensors")
    make(path)
    for read in (weights.header, weights.metadata, files.read_json):
        with pytest.raises(ModelError) as caught:
            read(path)
        assert words in caught.value.detail
    if kind not in {"folder", "nothing"}:
        with pytest.raises(ModelError) as caught:
            catalog.resolve(str(path), tmp_path)
        assert words in caught.value.detail


def test_a_folder_in_place_of_a_file_says_what_is_in_it(tmp_path):
    """An unpacked download: the file to give is one further in."""
    folder = tmp_path / "x.safetensors"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(TENSORS)
    with pytest.raises(ModelUnsuitable, match=r"Give .*x\.safetensors/model\.safetensors\.$"):
        weights.header(folder)
    with pytest.raises(ModelUnsuitable, match=r"Give .*x\.safetensors/model\.safetensors\.$"):
        catalog.index(folder)


BAD_JSON = {
    "missing": (None, "is missing"),
    "empty": (b"", "is empty"),
    "cut": (b'{"a": ', "is damaged (Expecting value"),
    "deep": (b"[" * 100_000, "is damaged (it is nested too deep)"),
    "deep objects": (b'{"a":' * 100_000, "is damaged (it is nested too deep)"),
    "list": (b"[]", "is damaged (it holds a list, not an object)"),
    "null": (b"null", "is damaged (it holds a NoneType, not an object)"),
    "latin": (b'{"a": "\xe9"}', "is damaged (it is no UTF-8 text)"),
    "digits": (b'{"a": ' + b"1" * 10_000 + b"}", "is damaged ("),
    "html": (b"<!doctype html>", "is an HTML page"),
    "lfs": (OTHER_THINGS["lfs"][0], "is a pointer of Git LFS"),
    "zeros": (bytes(100), "is full of zeros"),
    "pickle": (pickle.dumps({}), "is a pickle file"),
}


@pytest.mark.parametrize("kind", BAD_JSON)
def test_json_that_cannot_be_used_is_one_error_with_a_cure(tmp_path, kind):
    """Whatever is wrong with it."""
    content, words = BAD_JSON[kind]
    path = tmp_path / "config.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        files.read_json(path)
    assert words in caught.value.detail
    assert "\n" not in caught.value.detail
    assert caught.value.detail.rstrip(".").endswith(
        ("where it came from", "download the file itself", "lfs pull", "Download that one")
    )


def test_json_that_is_too_large_is_not_parsed(tmp_path):
    """A hole of 65 MB stands for it."""
    path = tmp_path / "config.json"
    with path.open("wb") as file:
        file.write(b'{"a": 1')
        file.truncate(65 * 2**20)
    with pytest.raises(ModelError, match="it is larger than 64 MB"):
        files.read_json(path)


def test_json_as_editors_and_numpy_write_it_is_read(tmp_path):
    """With a byte order mark, and with numbers that JSON does not have."""
    path = tmp_path / "config.json"
    path.write_bytes(b'\xef\xbb\xbf{"a": NaN, "b": 1e999, "c": [-Infinity]}')
    assert files.read_json(path)["b"] == float("inf")


def test_the_cure_for_a_file_in_the_hubs_cache_is_the_command(tmp_path):
    """With its name and its cache, quoted."""
    cache = tmp_path / "my models"
    path = cache / "models--org--name-v1.5" / "snapshots" / HASH / "unet" / "config.json"
    said = files.fetch_again(path)
    words = shlex.split(said.partition("Fetch it again: ")[2])
    assert words[-5:] == ["models", "pull", "org/name-v1.5", "--model-cache-dir", str(cache)]
    path.parent.mkdir(parents=True)
    path.write_bytes(OTHER_THINGS["lfs"][0])
    with pytest.raises(ModelError, match="models pull org/name"):
        files.read_json(path)


def test_the_cure_for_the_bundled_model_is_its_own(monkeypatch, tmp_path):
    """In a checkout Git has it; else it came with the package."""
    demo = tmp_path / "my checkout" / "service" / "demo"
    (demo / "unet").mkdir(parents=True)
    monkeypatch.setattr(files, "DEMO_FOLDER", demo)
    weight = demo / "unet" / "config.json"
    weight.write_text("{}")
    assert "install the service again" in files.fetch_again(weight)
    root = demo.parents[1]
    git = ["git", "-C", str(root), "-c", "user.name=x", "-c", "user.email=x@localhost"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "x"], check=True)
    weight.write_text("damaged")
    command = files.fetch_again(weight).partition("Restore it: ")[2]
    subprocess.run(["/bin/sh", "-c", command], check=True, cwd="/", capture_output=True)
    assert json.loads(weight.read_text()) == {}


def test_the_cure_for_a_folder_of_ones_own_is_a_copy(tmp_path):
    """Nobody knows where it came from."""
    (tmp_path / "model_index.json").write_text("{}")
    assert files.fetch_again(tmp_path / "unet" / "config.json") == (
        "Copy it again from where the folder came from."
    )


def test_a_pointer_of_git_lfs_in_a_working_tree(tmp_path):
    """Where Git can fetch the file, the cure is the command that does so."""
    (tmp_path / ".git").mkdir()
    path = tmp_path / "model" / "unet.safetensors"
    path.parent.mkdir()
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n")

    seen = files.look(path)

    assert seen is not None
    assert seen.cure == f"Fetch the file: git -C {path.parent} lfs pull"
