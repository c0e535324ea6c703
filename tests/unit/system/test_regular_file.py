"""Files that somebody else puts there."""

import os
import socket
from pathlib import Path

import pytest

from service.system import regular_file


def folder(path: Path) -> None:
    path.mkdir()


def pipe(path: Path) -> None:
    os.mkfifo(path)


def listener(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


def link_to_a_pipe(path: Path) -> None:
    os.mkfifo(path.with_name("pipe"))
    path.symlink_to("pipe")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (folder, "is a folder"),
        (pipe, "is a named pipe"),
        (listener, "is a socket"),
        (zeros, "is a device"),
        (link_to_a_pipe, "is a named pipe"),
    ],
)
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path, make, words):
    """Whatever a link leads to counts."""
    path = tmp_path / "it"
    make(path)
    with pytest.raises(ValueError, match=f"^{words}, and must be a regular file$"):
        regular_file.read(path, 10)


def test_a_pipe_that_takes_a_files_place_meanwhile_is_not_waited_for(tmp_path, monkeypatch):
    """Between the look and the opening."""
    path = tmp_path / "it"
    path.touch()
    real = os.open

    def swapped(given, *more):
        path.unlink()
        os.mkfifo(path)
        return real(given, *more)

    monkeypatch.setattr(os, "open", swapped)
    with pytest.raises(ValueError, match="is a named pipe"):
        regular_file.read(path, 10)


def test_a_file_is_read_up_to_its_bound(tmp_path):
    """One that grows for ever is read no further."""
    path = tmp_path / "it"
    path.write_bytes(b"0123456789")
    data, found = regular_file.read(path, 10)
    assert (data, found.st_size) == (b"0123456789", 10)
    with pytest.raises(ValueError, match="has more than 9 bytes"):
        regular_file.read(path, 9)
    with pytest.raises(FileNotFoundError):
        regular_file.read(tmp_path / "none", 10)
