"""Names of new images, and writing them without harm to what is there."""

import errno
import os
from pathlib import Path

import pytest

from service.cli import output
from service.errors import ConfigError


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("a cat", "a-cat-7"),
        ("A Cat, (red:1.3) -- 4k!", "a-cat-red-1-3-4k-7"),
        ("a boat <lora:ink:0.8> at sea", "a-boat-at-sea-7"),
        ("../../etc/passwd", "etc-passwd-7"),
        ("-rf ~", "rf-7"),
        ("!?", "image-7"),
        ("<lora:ink>", "image-7"),
        ("Ein Bär im Schnee", "ein-bär-im-schnee-7"),
        ("e\u0301te\u0301", "été-7"),
        ("雪の中の猫", "雪の中の猫-7"),
        ("line\nbreak\x00\x1b[31m", "line-break-31m-7"),
        ("\ud800 cat", "cat-7"),
        ("word " * 40, "-".join(["word"] * 12) + "-7"),
        ("x" * 500, "x" * 60 + "-7"),
        ("雪" * 500, "雪" * 20 + "-7"),
    ],
)
def test_a_name_is_made_of_the_prompts_words(prompt, name):
    """No path, no sign that a shell or a terminal reads, and never too long for a file system."""
    assert output.stem(prompt, 7) == name
    assert len(os.fsencode(name)) < 100


def test_a_new_image_replaces_nothing(tmp_path: Path):
    """The first free number is taken; a link that leads nowhere is a name that is taken, too."""
    (tmp_path / "cat.png").write_bytes(b"old")
    (tmp_path / "cat-2.png").symlink_to("nowhere")
    assert output.write_new(tmp_path, "cat", b"new") == tmp_path / "cat-3.png"
    assert (tmp_path / "cat-3.png").read_bytes() == b"new"
    assert (tmp_path / "cat.png").read_bytes() == b"old"
    assert not (tmp_path / "nowhere").exists()


class Full:
    """A file on a full disk."""

    def __init__(self, file) -> None:
        self._file = file

    def __enter__(self):
        return self

    def __exit__(self, *_error) -> None:
        self._file.close()

    def write(self, content: bytes) -> int:
        self._file.write(content[:1])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_nothing_is_left_of_an_image_that_cannot_be_written(tmp_path: Path, monkeypatch):
    """Half an image would look like a whole one by its name."""
    opened = Path.open
    monkeypatch.setattr(Path, "open", lambda self, mode: Full(opened(self, mode)))
    with pytest.raises(OSError, match="No space left"):
        output.write_new(tmp_path, "cat", b"new")
    assert [*tmp_path.iterdir()] == []


def test_a_folder_that_takes_no_files_is_told_before_the_work():
    """Not even root can write into /proc."""
    with pytest.raises(ConfigError, match="cannot be written"):
        output.demand_folder(Path("/proc"))
