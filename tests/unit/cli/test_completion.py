"""The command ``completion``, carried out by the shells that are installed."""

import shutil
import subprocess
from pathlib import Path

import pytest
import shtab

from service.__main__ import COMMANDS, main
from service.cli import completion
from service.core.sampler import SAMPLER_NAMES

ASK = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
_shtab_sd_api sd-api "${@: -1}" "${@: -2:1}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def script(tmp_path: Path, capsys) -> Path:
    """Return bash's script in a file, in a folder with an image."""
    assert main(["completion", "bash"]) == 0
    (tmp_path / "cat.png").touch()
    path = tmp_path / "script"
    path.write_text(capsys.readouterr().out)
    return path


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["ge"], {"generate"}),
        ([""], {*COMMANDS}),
        (["generate", "--prev"], {"--preview"}),
        (["generate", "--sampler", ""], {*SAMPLER_NAMES}),
        (["models", "pu"], {"pull"}),
        (["serve", "--log-level", "D"], {"DEBUG"}),
        (["serve", "--vae-tiling", "t"], {"true"}),
        (["generate", "-o", "ca"], {"cat.png"}),
        (["completion", "f"], {"fish"}),
    ],
)
def test_bash_completes_commands_options_and_values(script, words, expected):
    """Values of requests and settings, and files where a path stands."""
    bash = shutil.which("bash") or pytest.skip("bash is not installed")
    done = subprocess.run(
        [bash, "-c", ASK, "bash", str(script), "sd-api", *words],
        cwd=script.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert {*done.stdout.split()} == expected


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_every_shell_gets_all_commands(shell, capsys):
    """Each in a script of its own."""
    assert main(["completion", shell]) == 0
    said = capsys.readouterr().out
    assert [name for name in COMMANDS if name not in said] == []


def test_the_shells_are_those_of_the_library():
    """A new one is offered when the library has it."""
    assert tuple(shtab.SUPPORTED_SHELLS) == completion.SHELLS
