"""Printed commands run as they are printed, from any directory."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from service.models import commands

ROOT = Path(__file__).parents[3]


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in for an installation in a folder whose name a shell would take apart."""
    folder = tmp_path / "my programs; $HOME"
    folder.mkdir()
    script = folder / "sd-api"
    script.write_text('#!/bin/sh\necho "$@"\n')
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    return script


def test_a_script_that_the_shell_does_not_find_is_named_by_its_path(script, tmp_path):
    """The path is quoted."""
    command = commands.sd_api("models", "pull", "org/na me")
    assert shlex.split(command) == [str(script), "models", "pull", "org/na me"]
    assert run(command, tmp_path).stdout == "models pull org/na me\n"


def test_a_script_that_the_shell_finds_goes_by_its_name(script, monkeypatch):
    """As whoever activated the environment would write it; another sd-api is not it."""
    monkeypatch.setenv("PATH", f"{script.parent}{os.pathsep}{os.environ['PATH']}")
    assert commands.sd_api("models") == "sd-api models"
    other = script.parent.parent / "other"
    other.mkdir()
    (other / "sd-api").write_text("#!/bin/sh\n")
    (other / "sd-api").chmod(0o755)
    monkeypatch.setenv("PATH", f"{other}{os.pathsep}{os.environ['PATH']}")
    assert shlex.split(commands.sd_api("models"))[0] == str(script)


def test_without_a_script_the_interpreter_is_called(tmp_path, monkeypatch):
    """As in a checkout that is not installed."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    command = commands.sd_api("--version")
    assert command == f"{python} -m service --version"
    assert run(command, tmp_path).stdout.startswith("sd-api ")


def test_commands_about_models_name_their_cache(tmp_path, monkeypatch):
    """A relative one as seen from here: the shell may stand elsewhere."""
    monkeypatch.chdir(tmp_path)
    command = commands.models("list", cache_dir=Path("my models"))
    assert shlex.split(command)[-2:] == ["--model-cache-dir", str(tmp_path / "my models")]
    assert run(command, Path("/")).returncode == 0


def test_renaming_replaces_nothing(tmp_path):
    """Whatever the names are."""
    path = tmp_path / "-a'b c.ckpt"
    path.write_text("new")
    target = tmp_path / "-a'b c.safetensors"
    assert run(commands.rename(path, target.name), Path("/")).returncode == 0
    assert target.read_text() == "new"
    path.write_text("other")
    run(commands.rename(path, target.name), Path("/"))
    assert target.read_text() == "new"
