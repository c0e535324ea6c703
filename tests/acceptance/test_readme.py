"""What the README says is so: its commands run, its tables are current."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import requests
from PIL import Image

from scripts.settings_table import table
from service.config.limits import limits_of
from service.config.table import Config
from tests.support.service_process import WAIT_SECONDS, ServiceProcess, ending

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CLIENTS = (ROOT / "docs" / "CLIENTS.md").read_text(encoding="utf-8")
ADDRESS = "http://127.0.0.1:8000"


def block(language: str, containing: str, document: str = README) -> str:
    """Return the one code block of a language that contains a text."""
    blocks: list[str] = re.findall(rf"```{language}\n(.*?)```", document, re.DOTALL)
    (found,) = [each for each in blocks if containing in each]
    return found


class MadeService(ServiceProcess):
    """A service that is started by the README's first command."""

    def command(self) -> list[str]:
        """Return the command, with an installation that is there already and works."""
        venv = self.folder / "venv"
        (venv / "bin").mkdir(parents=True)
        (venv / "bin" / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        (venv / "bin" / "python").chmod(0o700)
        (venv / ".installed").touch()
        program, *words = block("sh", "make serve\n").split()
        return [demand(program), "-C", str(ROOT), f"VENV={venv}", *words]


@pytest.fixture(scope="module")
def service():
    """Start a service with the demo model as a reader does, and end it as Ctrl-C does."""
    with ending(MadeService()) as started:
        pid = started.logged("service_listening")["pid"]
        try:
            started.logged("model_loaded")
            yield started
        finally:
            os.kill(pid, signal.SIGINT)
        assert started.process.wait(WAIT_SECONDS) == 0


def run(command: list[str], folder: Path) -> None:
    """Run a program and show what it said if it fails."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def size(path: Path) -> tuple[int, int]:
    """Return an image's width and height."""
    with Image.open(path) as image:
        return image.size


def demand(program: str) -> str:
    """Return a program's path, or skip."""
    if (path := shutil.which(program)) is None:
        pytest.skip(f"{program} is not installed; the README shows it to those who have it")
    return path


def test_the_first_command_starts_the_service(service):
    """`make serve`, and nothing else, on this machine only and with the bundled model."""
    assert service.url.startswith("http://127.0.0.1:")
    assert requests.get(f"{service.url}/health", timeout=60).json()["model"]["id"] == "demo"


def test_the_curl_line_writes_an_image(service, tmp_path):
    """The README's first request gives a PNG of 512x512."""
    demand("curl")
    command = block("sh", "curl").replace(ADDRESS, service.url)
    run(["bash", "-ec", command], tmp_path)
    assert size(tmp_path / "cabin.png") == (512, 512)


def test_the_python_client_writes_an_image(service, tmp_path):
    """The Python lines run as they stand."""
    code = block("python", "requests", CLIENTS).replace(ADDRESS, service.url)
    run([sys.executable, "-c", code], tmp_path)
    assert size(tmp_path / "robot.png") == (512, 512)


def test_the_javascript_client_writes_an_image(service, tmp_path):
    """The JavaScript lines run in Node as they stand, in a file of their own."""
    program = tmp_path / "lake.mjs"
    program.write_text(
        block("js", "fetch", CLIENTS).replace(ADDRESS, service.url), encoding="utf-8"
    )
    run([demand("node"), str(program)], tmp_path)
    assert size(tmp_path / "lake.png") == (768, 512)


def test_the_command_line_writes_an_image(tmp_path):
    """The line that needs no server writes its image."""
    command = block("sh", "sd-api generate", CLIENTS).replace(
        ".venv/bin/sd-api", f"{sys.executable} -m service"
    )
    run(["bash", "-ec", command], tmp_path)
    assert size(tmp_path / "sunset.png") == (512, 512)


def test_the_table_of_settings_is_current():
    """`scripts/settings_table.py` has been run since the settings last changed."""
    assert table() in (ROOT / "docs" / "SETTINGS.md").read_text(encoding="utf-8")


def test_the_defaults_of_a_request_are_those_of_the_settings():
    """The table of fields shows what the settings say."""
    config, reference = limits_of(Config()), (ROOT / "docs" / "API.md").read_text(encoding="utf-8")
    assert f" | `{config.default_steps}` | 1-{config.max_steps} | Denoising" in reference
    assert f" | `{config.default_guidance_scale}` | 0-30 | How closely" in reference
    assert f"`{config.default_size}` | {config.min_size}-{config.max_size}, mult" in reference
    assert f" | `1` | 1-{config.max_images} | Number of images" in reference
    assert f"1-{config.max_prompt_chars} characters" in reference


def test_torch_by_hand_is_the_torch_of_the_constraints():
    """Another version would be replaced by the second line, and by another build."""
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    (version,) = re.findall(r"^torch==(.+)$", constraints, re.MULTILINE)
    starting = (ROOT / "docs" / "STARTUP.md").read_text(encoding="utf-8")
    assert re.findall(r"pip install torch\S*", starting) == [f"pip install torch=={version}"]


def test_it_can_be_read_in_five_minutes():
    """600 to 900 words, as ``wc -w`` counts them."""
    assert 600 <= len(README.split()) <= 900


def test_nothing_is_left_to_be_filled_in():
    """A line of one word in capitals stands for something that is still to come."""
    assert re.findall(r"^[A-Z][A-Z_]+$", README, re.MULTILINE) == []
