"""Packages that are brought along: unpacked where they are missing, and left alone elsewhere."""

import os
import subprocess
import sys
import zipfile
from importlib import util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scripts import benchmark_card
from scripts.cards.suite import wheels
from service.cli.exits import Exit

STRANGER = "a_package_that_is_nowhere"


@pytest.fixture
def lacking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Need a package that this environment lacks."""
    find = wheels.missing
    monkeypatch.setattr(wheels, "missing", lambda: find([STRANGER]))
    monkeypatch.setattr(wheels, "BROUGHT", {STRANGER: "a-package"})


def wheel(folder: Path) -> None:
    """Write a wheel of that package."""
    with zipfile.ZipFile(folder / f"{STRANGER}-1-py3-none-any.whl", "w") as file:
        file.writestr(f"{STRANGER}.py", "HERE = True\n")


@pytest.mark.usefixtures("lacking")
def test_a_wheel_is_enough_for_this_process_and_its_children(monkeypatch, tmp_path):
    """Its package can be imported until the end, and not afterwards."""
    monkeypatch.setenv("PYTHONPATH", "/mine")
    wheel(tmp_path)
    before = list(sys.path)
    with wheels.unpacked(tmp_path) as missing:
        assert missing == []
        assert util.find_spec(STRANGER) is not None
        assert os.environ["PYTHONPATH"].endswith("/mine")
        child = [sys.executable, "-c", f"import {STRANGER}; print({STRANGER}.HERE)"]
        assert subprocess.run(child, capture_output=True, check=True).stdout == b"True\n"
    assert util.find_spec(STRANGER) is None
    assert sys.path == before
    assert os.environ["PYTHONPATH"] == "/mine"


def test_an_environment_that_has_all_is_left_alone(monkeypatch, tmp_path):
    """A wheel that lies there from another day does not hide what is installed."""
    monkeypatch.setattr(wheels, "missing", list)
    wheel(tmp_path)
    with wheels.unpacked(tmp_path):
        assert util.find_spec(STRANGER) is None


@pytest.mark.usefixtures("lacking")
def test_what_is_missing_is_one_line_with_the_command(monkeypatch, tmp_path, capsys):
    """No wheels, no measurement: the line names the packages and how they come here."""
    monkeypatch.setattr(wheels, "FOLDER", tmp_path)
    assert benchmark_card.main(["--on-cpu"]) == Exit.NOT_INSTALLED
    (line,) = capsys.readouterr().err.splitlines()
    assert STRANGER in line
    assert "--fetch-wheels" in line


def test_what_no_wheel_brings_is_to_be_installed():
    """The machine itself must have torch."""
    said = wheels.lack(["torch", "diffusers"])
    assert said.startswith("torch, diffusers cannot be found")
    assert "Install torch here" in said


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Stand in for pip: it leaves files of these names."""

    def stand_in(*names: str, code: int = 0) -> list[list[str]]:
        asked: list[list[str]] = []

        def run(command: list[str], **_: object) -> SimpleNamespace:
            asked.append(command)
            folder = Path(command[command.index("--wheel-dir") + 1])
            for name in names:
                (folder / name).write_bytes(b"x" * 1500)
            return SimpleNamespace(returncode=code)

        monkeypatch.setattr(subprocess, "run", run)
        return asked

    return stand_in


def test_wheels_are_fetched_without_their_needs_and_older_ones_go(pip, tmp_path, capsys):
    """In the versions of the project, into a folder that holds one version of each."""
    (tmp_path / "old-1-py3-none-any.whl").touch()
    asked = pip("new-2-py3-none-any.whl")
    assert wheels.fetch(tmp_path) == 0
    (command,) = asked
    assert {"--no-deps", "diffusers", str(wheels.CONSTRAINTS)} <= set(command)
    assert [path.name for path in tmp_path.iterdir()] == ["new-2-py3-none-any.whl"]
    assert "1,500  bytes in" in capsys.readouterr().out


def test_wheels_that_would_not_run_elsewhere_are_refused(pip, tmp_path, capsys):
    """One that was built for this Python alone, and none at all."""
    pip("a-1-cp312-cp312-linux_x86_64.whl")
    assert wheels.fetch(tmp_path) == 1
    assert "a-1-cp312-cp312-linux_x86_64.whl must be pure Python" in capsys.readouterr().err
    pip(code=1)
    assert wheels.fetch(tmp_path) == 1
    assert "pip fetched no wheels" in capsys.readouterr().err
