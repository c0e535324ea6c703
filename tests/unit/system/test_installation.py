"""Which command installs what is missing, by how the program was installed."""

import json
import shlex
import sys
from importlib import metadata
from pathlib import Path

import pytest

from service.models import commands
from service.system import installation
from service.system.installation import Installation, Kind

WHEEL = "/a b/sd_api-0.1.0-py3-none-any.whl"
WANTED = f"'{WHEEL}[engine]'"
INDEX = "--index-url https://download.pytorch.org/whl/cu126"


@pytest.mark.parametrize(
    ("kind", "engine", "torch", "alone"),
    [
        (
            Kind.CHECKOUT,
            f"make -C '{WHEEL}' install",
            f"make -C '{WHEEL}' serve TORCH=cu126",
            "/py -m pip install --no-deps x",
        ),
        (
            Kind.EDITABLE,
            f"/py -m pip install --editable {WANTED}",
            f"/py -m pip install --force-reinstall torch {INDEX}",
            "/py -m pip install --no-deps x",
        ),
        (
            Kind.PIP,
            f"/py -m pip install {WANTED}",
            f"/py -m pip install --force-reinstall torch {INDEX}",
            "/py -m pip install --no-deps x",
        ),
        (
            Kind.PIPX,
            f"pipx install --force {WANTED}",
            f"pipx inject --force sd-api torch {INDEX}",
            "pipx runpip sd-api install --no-deps x",
        ),
        (
            Kind.PIPX_RUN,
            f"pipx run --spec {WANTED} sd-api",
            f"pipx install {WANTED} && pipx inject --force sd-api torch {INDEX}",
            "",
        ),
        (
            Kind.UV_TOOL,
            f"uv tool install --force {WANTED}",
            f"uv tool install --force --torch-backend cu126 {WANTED}",
            "uv pip install --python /py --no-deps x",
        ),
        (
            Kind.UVX,
            f"uvx --from {WANTED} sd-api",
            f"uvx --torch-backend cu126 --from {WANTED} sd-api",
            "",
        ),
    ],
)
def test_commands_fit_the_installation(monkeypatch, kind, engine, torch, alone):
    """Whoever used uvx is not told to use make; paths are quoted for the shell."""
    monkeypatch.setattr(installation, "find_spec", lambda _name: object())
    found = Installation(kind=kind, source=WHEEL, python="/py")
    assert (found.engine(), found.torch("cu126"), found.alone("x")) == (engine, torch, alone)
    assert shlex.split(found.extras("engine", "tracing"))


def test_an_environment_without_pip_is_changed_by_uv(monkeypatch):
    """As `uv venv` makes them."""
    monkeypatch.setattr(installation, "find_spec", lambda _name: None)
    found = Installation(kind=Kind.PIP, source=WHEEL, python="/py")
    assert found.engine() == f"uv pip install --python /py {WANTED}"


@pytest.mark.parametrize(
    ("folder", "file", "kind"),
    [
        ("share/pipx/venvs/sd-api", "pipx_metadata.json", Kind.PIPX),
        ("cache/pipx/a52b530daed91e7", "pipx_metadata.json", Kind.PIPX_RUN),
        ("share/uv/tools/sd-api", "uv-receipt.toml", Kind.UV_TOOL),
        ("cache/uv/archive-v0/cdKhoxJL4y", "pyvenv.cfg", Kind.UVX),
        ("work/venv", "pyvenv.cfg", Kind.PIP),
    ],
)
def test_an_environment_tells_who_made_it(tmp_path: Path, folder, file, kind):
    """What pipx and uv make has a file of theirs, and uvx works in uv's cache."""
    environment = tmp_path / folder
    environment.mkdir(parents=True)
    (environment / file).touch()
    assert installation.kind_of(environment) == kind


def test_a_checkout_is_made_by_make():
    """Only its own environment is: another one has this folder as an editable package."""
    found = installation.here()
    own = Path(sys.prefix).resolve() == (installation.ROOT / ".venv").resolve()
    assert found.kind == (Kind.CHECKOUT if own else Kind.EDITABLE)
    assert found.source == str(Path(__file__).parents[3])


COMMIT = {"vcs": "git", "commit_id": "abc123"}


@pytest.mark.parametrize(
    ("recorded", "wanted"),
    [
        ({"url": "file:///a%20b/sd.whl", "archive_info": {}}, "/a b/sd.whl[engine]"),
        ({"url": "https://host.test/sd.whl"}, "sd-api[engine] @ https://host.test/sd.whl"),
        (
            {"url": "https://host.test/sd.git", "vcs_info": COMMIT},
            "sd-api[engine] @ git+https://host.test/sd.git@abc123",
        ),
        ({}, "sd-api[engine]"),
        ([], "sd-api[engine]"),
        (None, "sd-api[engine]"),
    ],
)
def test_it_is_installed_again_from_where_it_came(monkeypatch, tmp_path, recorded, wanted):
    """As pip and uv have written it down (PEP 610); an index is asked by the name."""

    class Recorded(metadata.Distribution):
        def read_text(self, filename):
            assert filename == "direct_url.json"
            return None if recorded is None else json.dumps(recorded)

        def locate_file(self, path):
            return tmp_path / path

    monkeypatch.setattr(installation, "ROOT", tmp_path)
    monkeypatch.setattr(metadata, "distribution", lambda _name: Recorded())
    found = installation.here()
    assert installation.requirement(found.source, "engine") == wanted


def test_an_environment_for_one_run_is_made_again(monkeypatch):
    """A path into uv's cache would be gone when it is needed."""
    found = Installation(kind=Kind.UVX, source=WHEEL)
    monkeypatch.setattr(installation, "here", lambda: found)
    assert commands.sd_api("models", "list") == f"uvx --from {WANTED} sd-api models list"
