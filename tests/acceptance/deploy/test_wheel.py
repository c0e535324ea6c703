"""The wheel: what it holds, that uvx, pipx and pip run it, and what it says without its engine."""

import os
import re
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from service.cli.exits import Exit
from tests.support.deploy.wheel import built, checkout, program, run, tracked
from tests.support.documents import ROOT

LICENCES = ("LICENSE", "THIRD_PARTY.md")
ASK = """
import asyncio, sys
from aiohttp.test_utils import TestClient, TestServer
import service
from service.app import create_app
from service.config.table import Config
from tests.support.simulation.fake_engine import FakeEngine

assert "site-packages" in service.__file__, service.__file__
assert "torch" not in sys.modules


async def main():
    app = create_app(Config(data_dir=""), FakeEngine())
    async with TestClient(TestServer(app)) as client:
        for path in ("/health", "/docs", "/openapi.json", "/models", "/models/adapters"):
            async with client.get(path) as answer:
                print(path, answer.status)
        async with client.post("/generate", json={"prompt": "a cat"}) as answer:
            print("/generate", answer.status)


asyncio.run(main())
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """Return a copy of the project that a wheel has been built in, after one of an older state."""
    folder = checkout(tmp_path_factory.mktemp("project") / "a project")
    old = folder / "build" / "lib" / "service"
    old.mkdir(parents=True)
    (old / "gone.py").touch()
    built(folder)
    return folder


@pytest.fixture(scope="module")
def wheel(project: Path) -> Path:
    (found,) = (project / "dist").glob("*.whl")
    return found


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """Download each package once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UV_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


def test_everything_that_the_service_reads_is_inside(wheel):
    """Every file of the package, the demo model and its card among them.

    Nothing else is: a build keeps what it copied, and a module may be gone by the next one.
    """
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert inside == {name for name in tracked() if name.startswith("service/")}
    assert "service/demo/unet/diffusion_pytorch_model.safetensors" in inside


def test_the_licences_are_inside(wheel):
    """Those of the service and of what it brings along."""
    with zipfile.ZipFile(wheel) as archive:
        found = {
            name.partition("/licenses/")[2]: archive.read(name).decode()
            for name in archive.namelist()
            if "/licenses/" in name
        }
    there = [name for name in LICENCES if (ROOT / name).is_file()]
    assert found == {name: (ROOT / name).read_text(encoding="utf-8") for name in there}


def missing(said: str) -> str:
    """Return what a start without the engine's packages says to do."""
    return said.partition("Install what the engine needs: ")[2].splitlines()[0]


def test_uvx_runs_the_wheel(wheel, tmp_path):
    """The service answers without torch, and its start says what uvx has to be told."""
    uvx = [program("uvx"), "--quiet", "--from", wheel]
    assert "sd-api " in run([*uvx, "sd-api", "--version"], tmp_path)
    said = run([*uvx, "sd-api"], tmp_path, expected=Exit.NOT_INSTALLED)
    assert missing(said) == f"uvx --from '{wheel}[engine]' sd-api"
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    answers = run([*uvx, "python", "-c", ASK], tmp_path, more={"PYTHONPATH": str(tmp_path)})
    assert re.findall(r"(\S+) 200", answers) == re.findall(r"(/\S+) \d+", answers)
    assert "/generate 200" in answers


def test_uvx_runs_a_checkout(project, tmp_path):
    """The folder stands where the wheel would."""
    said = run(
        [program("uvx"), "--quiet", "--from", project, "sd-api"],
        tmp_path,
        expected=Exit.NOT_INSTALLED,
    )
    assert missing(said) == f"uvx --from '{project}[engine]' sd-api"


def test_pipx_runs_and_installs_the_wheel(wheel, tmp_path):
    """Each in its own way, and each with its own command for what is missing."""
    pipx = program("pipx")
    said = run([pipx, "run", "--spec", wheel, "sd-api"], tmp_path, expected=Exit.NOT_INSTALLED)
    assert missing(said) == f"pipx run --spec '{wheel}[engine]' sd-api"
    run([pipx, "install", wheel], tmp_path)
    installed = tmp_path / ".local" / "bin" / "sd-api"
    said = run([installed, "serve"], tmp_path, expected=Exit.NOT_INSTALLED)
    assert missing(said) == f"pipx install --force '{wheel}[engine]'"


@pytest.mark.long
def test_uv_installs_the_wheel(wheel, tmp_path):
    """As a tool, or into an environment that is there, which has no pip."""
    uv = program("uv")
    run([uv, "tool", "install", "--quiet", wheel], tmp_path)
    said = run([tmp_path / ".local/bin/sd-api"], tmp_path, expected=Exit.NOT_INSTALLED)
    assert missing(said) == f"uv tool install --force '{wheel}[engine]'"
    run([uv, "venv", "--quiet", "own", "--python", sys.executable], tmp_path)
    python = tmp_path / "own" / "bin" / "python"
    run([uv, "pip", "install", "--quiet", "--python", python, wheel], tmp_path)
    said = run([python, "-m", "service"], tmp_path, expected=Exit.NOT_INSTALLED)
    assert missing(said) == f"uv pip install --python {python} '{wheel}[engine]'"


@pytest.mark.long
def test_an_image_from_the_wheel(wheel, tmp_path):
    """One command from nothing to an image, with the engine; torch comes from where pip has it."""
    versions = {"UV_CONSTRAINT": str(ROOT / "constraints.txt")}
    if "PIP_FIND_LINKS" in os.environ:
        versions["UV_FIND_LINKS"] = os.environ["PIP_FIND_LINKS"]
    else:
        versions["UV_TORCH_BACKEND"] = "cpu"
    command = [program("uvx"), "--quiet", "--from", f"{wheel}[engine]", "sd-api", "generate"]
    size = ["--width", "256", "--height", "256", "--steps", "4", "-o", "cat.png"]
    run([*command, "a cat", *size], tmp_path, more=versions)
    with Image.open(tmp_path / "cat.png") as image:
        assert image.size == (256, 256)
