"""deploy/ray: the units of systemd for a cluster by hand, against the Ray that is pinned."""

import json
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.unit.deploy.test_deploy import DEPLOY, NEEDED_SECONDS, environment

RAY = DEPLOY / "ray"
UNITS = {path.stem: path.read_text(encoding="utf-8") for path in sorted(RAY.glob("*.service"))}
HEAD, NODE = UNITS["sd-ray-head"], UNITS["sd-ray-node"]
DROP_IN = (RAY / "sd-api-ray.conf").read_text(encoding="utf-8")
GUIDE = (DEPLOY.parent / "docs" / "SCALING.md").read_text(encoding="utf-8")
SHARED = environment(RAY / "ray.env")


def value(unit: str, name: str) -> str:
    """Return what a directive of a unit says, which has it once."""
    (found,) = re.findall(rf"(?m)^{name}=(.*)$", unit.replace("\\\n", ""))
    return str(found)


def flags(unit: str) -> dict[str, str]:
    """Return the options of a unit's ``ray start``."""
    words = value(unit, "ExecStart").split()[2:]
    return dict(word.partition("=")[::2] for word in words)


@pytest.fixture(scope="module")
def ray() -> dict[str, list[str]]:
    """Return the options of ``ray start`` and the names of Ray's settings, from a process."""
    if find_spec("ray") is None:
        pytest.skip("ray is not installed: the extra [ray] brings it")
    program = (
        "import json\n"
        "from ray._private import ray_constants\n"
        "from ray.scripts.scripts import start\n"
        "options = [name for each in start.params for name in each.opts]\n"
        "print(json.dumps({'options': options, 'constants': dir(ray_constants)}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    )
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", UNITS)
def test_systemd_takes_the_units(name, tmp_path):
    """Each directive is known and has a value that is one."""
    if (program := shutil.which("systemd-analyze")) is None:
        pytest.skip("systemd is not installed")
    file = tmp_path / f"{name}.service"
    text = UNITS[name].replace("/opt/sd-api/.venv/bin/ray", sys.executable)
    file.write_text(text, encoding="utf-8")
    done = subprocess.run(
        [program, "verify", file], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", UNITS)
def test_ray_knows_the_options(name, ray):
    """A version that renames one is not started with it."""
    assert set(flags(UNITS[name])) - set(ray["options"]) == set()


def test_ray_knows_the_settings(ray):
    """Those of its Python by their constants, those of its core by the names in its library."""
    (folder,) = find_spec("ray").submodule_search_locations or []  # type: ignore[union-attr]
    core = (Path(folder) / "core" / "src" / "ray" / "gcs" / "gcs_server").read_bytes()
    named = [*SHARED, *re.findall(r"\b(RAY_\w+)=", HEAD + NODE)]
    for name in sorted(set(named) - {"RAY_ADDRESS"}):
        known = name in ray["constants"] or name.removeprefix("RAY_").encode() in core
        assert known or name.encode() in core, name


def test_the_cluster_asks_for_a_token_everywhere():
    """Whoever reaches a port of Ray without one gets nothing."""
    wanted = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "/etc/sd-api/ray-token"}
    assert SHARED.items() >= wanted.items()
    for unit in (HEAD, NODE, DROP_IN):
        assert "EnvironmentFile=/etc/sd-api/ray.env" in unit
    assert "-m 600 -o sd-api" in GUIDE


def test_what_ray_keeps_is_for_its_user_alone():
    """Ray makes its folder of sockets and logs open to everybody, so it lies in one that is not."""
    for unit in (HEAD, NODE):
        assert value(unit, "StateDirectoryMode") == "0700"
        assert value(unit, "UMask") == "0077"
        assert flags(unit)["--temp-dir"] == "/var/lib/sd-ray/tmp"
        assert "sd-ray/tmp" in value(unit, "StateDirectory").split()
    assert SHARED["RAY_gcs_storage_path"] == "/var/lib/sd-ray/gcs"
    assert value(DROP_IN, "ReadWritePaths") == "/var/lib/sd-ray"


def test_a_node_has_the_time_that_its_jobs_take():
    """Nothing is killed before Ray has given up; a head has nothing to wait for."""
    (drain,) = re.findall(r"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=(\d+)", NODE)
    assert int(value(NODE, "TimeoutStopSec")) > int(drain) + 30
    assert int(drain) > NEEDED_SECONDS
    assert "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0" in HEAD
    for unit in (HEAD, NODE):
        assert (value(unit, "KillMode"), value(unit, "SuccessExitStatus")) == ("mixed", "1")


def test_ports_are_fixed_and_those_of_the_guide():
    """A firewall can be told of all of them."""
    table = GUIDE.partition("Ray's ports")[2].partition("```")[0]
    rows = re.findall(r"(?m)^\| ([\d, -]+) \| ", table)
    shown = {port for row in rows for port in re.split(r", |-", row)}
    for unit in (HEAD, NODE):
        given = {text for name, text in flags(unit).items() if name.endswith("-port")}
        given |= {flags(unit).get("--port", "6379")}
        assert given == shown
    assert SHARED["RAY_ADDRESS"].endswith(f":{flags(HEAD)['--port']}")
